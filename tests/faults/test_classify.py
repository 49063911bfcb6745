"""Each line of each table of errors, by having the database refuse it; and errors that are only consequences."""

from __future__ import annotations

from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, PendingRollbackError, StatementError

from savepoints import (
    Classification,
    CommitOutcomeUnknown,
    HookErrors,
    Kind,
    RetryFrom,
    TransactionFailed,
    TransactionLost,
    WrongArgument,
    classify,
    is_retryable,
)
from savepoints._databases import ROWS, capabilities
from savepoints.testing import inject
from tests.behaviours.steps import fails
from tests.faults.losses import killed, or_rollback
from tests.faults.provoked import FAILED_STATE, ONE_WRITER, PROVOCATIONS, UNDONE_ALONE, prepare
from tests.harness.world import World
from tests.proxy import Proxy

CODES = sorted({code for row in ROWS.values() if row.proven for code in row.errors})

# Named by the driver, in messages or fields of their own.
NAMED = {
    "23502": (None, "n"),
    "23503": ("faulty_p_fkey", None),
    "23505": ("faulty_n_key", None),
    "23514": ("small", None),
    "SQLITE_CONSTRAINT_CHECK": ("small", None),
    "SQLITE_CONSTRAINT_NOTNULL": (None, "n"),
    "SQLITE_CONSTRAINT_PRIMARYKEY": (None, "id"),
    "SQLITE_CONSTRAINT_UNIQUE": (None, "n"),
}


def test_each_line_is_provoked() -> None:
    assert sorted(PROVOCATIONS) == CODES


@pytest.mark.needs("core", "failed_state")
@pytest.mark.parametrize("code", FAILED_STATE)
async def test_line_where_an_error_fails_the_transaction(world: World, code: str) -> None:
    await check(world, code)


@pytest.mark.needs("core", "one_writer")
@pytest.mark.parametrize("code", ONE_WRITER)
async def test_line_where_there_is_one_writer(world: World, code: str) -> None:
    await check(world, code)


#: Numbers that clients give to a lost connection; a server has to say them here, which one driver does not take.
CLIENTS_OWN = ("2002", "2003", "2005", "2006", "2055")


@pytest.mark.needs("core", "clients_numbers")
@pytest.mark.parametrize("code", CLIENTS_OWN)
async def test_line_of_the_clients_own(world: World, code: str) -> None:
    assert isinstance(await check(world, code), TransactionLost)


@pytest.mark.needs("core", "deadlock_ends_all")
@pytest.mark.parametrize("code", [code for code in UNDONE_ALONE if code not in CLIENTS_OWN])
async def test_line_where_an_error_undoes_its_statement_or_all(world: World, code: str) -> None:
    error = await check(world, code)
    assert isinstance(error, TransactionLost) is (code in ENDS_ALL)


# After these there is no transaction any more; after the others it is as it was before the statement.
ENDS_ALL = {"1020", "1047", "1053", "1180", "1213", "1614", "1927", "2013", "4031"}


async def check(world: World, code: str) -> BaseException:
    rule = capabilities(world.sync_engine.dialect).errors[code]
    prepare(world)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what is asked
        await PROVOCATIONS[code](world)
    error = caught.value
    found = classify(error)
    whole = isinstance(error, TransactionLost) and rule.retry_from != "never"
    retry_from = RetryFrom.TRANSACTION if whole else rule.retry_from
    assert (found.kind, found.retry_from, found.first) == (rule.kind, retry_from, rule.first)
    assert is_retryable(error) == (rule.retry_from != "never" and not rule.first)
    if rule.kind is not Kind.DISCONNECT:  # a killed server gives no code, and a driver may make one up
        assert found.code is not None
        assert found.code.startswith(code)
    if code in NAMED:
        assert (found.constraint, found.column) == NAMED[code]
    if isinstance(error, DBAPIError):
        assert error.orig is not None
        assert classify(error.orig) == found
    if isinstance(error, (DBAPIError, TransactionLost)):
        await check_injected(world, code, error)
    return error


async def check_injected(world: World, code: str, real: BaseException) -> None:
    """What `testing.inject` raises of this kind is of the class that the real one has: `except` goes by it."""
    errors = capabilities(world.sync_engine.dialect).errors
    kind = errors[code].kind
    if code != next(one for one, rule in errors.items() if rule.kind is kind):
        return  # another one of the kind is injected
    with inject(world.engine, kind, statement=1), pytest.raises((DBAPIError, TransactionLost)) as caught:
        async with world.transaction(world.source) as t:
            await t.execute(text("SELECT 1"))
    assert type(driver_error(caught.value)) is type(driver_error(real))


def driver_error(error: BaseException) -> BaseException | None:
    return error.__cause__ if isinstance(error, TransactionLost) else error


# -- consequences, and what is no error of a database


async def test_a_lost_transaction_is_classified_by_what_ended_it(world: World) -> None:
    loss = killed if "kill" in world.site.has else or_rollback
    with fails(TransactionLost) as caught:
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            async with world.savepoint(t):
                await loss(world, t)
    found = classify(caught.value)
    if "kill" in world.site.has:
        assert (found.kind, found.retry_from) == ("connection lost", "the transaction")
        assert "failed (connection lost" in str(caught.value)  # a killed server may give no code
    else:
        assert (found.kind, found.retry_from, found.column) == ("unique constraint", "never", "id")


@pytest.mark.needs("failed_state")
async def test_a_failed_transaction_is_classified_by_the_first_statement(world: World) -> None:
    prepare(world)
    with fails(TransactionFailed) as caught:
        async with world.transaction(world.source) as t:
            with suppress(DBAPIError):
                await t.execute(text("INSERT INTO faulty VALUES (2, 1)"))
            await t.execute(text("SELECT 1"))
    assert (classify(caught.value).kind, classify(caught.value).constraint) == ("unique constraint", "faulty_n_key")


@pytest.mark.needs("orm")
async def test_sqlalchemys_own_consequence(world: World) -> None:
    """PendingRollbackError says only that something failed before."""
    async with world.open() as t:
        await t.execute(text("INSERT INTO item VALUES (1, 'x')"))
        t.add(world.Item(id=1))
        with suppress(DBAPIError):
            await t.flush()
        with pytest.raises(PendingRollbackError) as caught:
            await t.execute(text("SELECT 1"))
    assert classify(caught.value).retry_from == "never"


@pytest.mark.needs("network")
@pytest.mark.parametrize("cut", ["cut_before", "cut_after"])
async def test_a_plain_commit_without_an_answer(world: World, proxy: Proxy, cut: str) -> None:
    """The driver's error is that of any lost connection; that no statement was on its way tells the phase."""
    async with world.open() as t:
        await world.insert(t, 1)
        setattr(proxy, cut, b"COMMIT")
        with pytest.raises(DBAPIError) as caught:
            await t.commit()
        setattr(proxy, cut, None)
        found = classify(caught.value)
    assert (found.kind, found.retry_from) == ("commit outcome unknown", "never")
    assert not is_retryable(caught.value)


async def test_errors_of_the_code_are_not_retried(world: World) -> None:
    with pytest.raises(StatementError) as caught:
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            await t.execute(text("SELECT :missing"))
    assert classify(caught.value).retry_from == "never"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CommitOutcomeUnknown("x"), "commit outcome unknown"),
        (TransactionLost("ended behind us"), "programming"),
        (HookErrors("x", [ValueError()]), "programming"),
        (ValueError(), "error"),
        (KeyboardInterrupt(), "error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_no_database_has_said(error: BaseException, kind: str) -> None:
    assert classify(error) == Classification(Kind(kind))
    assert not is_retryable(error)


def test_only_errors_are_classified() -> None:
    with pytest.raises(WrongArgument, match="takes an exception"):
        classify("40001")  # type: ignore[arg-type]
    with pytest.raises(WrongArgument, match="takes an exception"):
        is_retryable(DBAPIError)  # type: ignore[arg-type]

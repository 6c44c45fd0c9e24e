"""auth_svc: accounts over gRPC, on both engines."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from chassis.faults import AlreadyExists, InvalidArgument, NotFound
from protos.auth.v1 import auth_pb2 as pb
from tests.harness.auth_service import AuthService, auth_service, new_id


@pytest.fixture
async def auth(database_url: str) -> AsyncIterator[AuthService]:
    async with auth_service(database_url) as service:
        yield service


async def test_a_new_account_is_active_and_found_by_id_and_by_name(auth: AuthService) -> None:
    made = await auth.create_account("Ünïcode & Söhne")
    assert made.account_id.startswith("acct_")
    assert len(made.account_id) == 27
    assert made.state == pb.ACCOUNT_STATE_ACTIVE
    assert made.create_time.seconds > 1_700_000_000
    by_id = await auth.call(auth.admin.GetAccount, pb.GetAccountRequest(account_id=made.account_id))
    by_name = await auth.call(auth.admin.GetAccount, pb.GetAccountRequest(name="Ünïcode & Söhne"))
    assert by_id.account == by_name.account == made


async def test_a_name_belongs_to_one_account(auth: AuthService) -> None:
    await auth.create_account("first")
    with pytest.raises(AlreadyExists) as caught:
        await auth.create_account("first")
    assert caught.value.reason == "ACCOUNT_NAME_TAKEN"
    other = await auth.create_account("second")
    request = pb.UpdateAccountRequest(request_id=new_id(), account=other)
    request.account.name = "first"
    request.update_mask.paths.append("name")
    with pytest.raises(AlreadyExists) as caught:
        await auth.call(auth.admin.UpdateAccount, request)
    assert caught.value.reason == "ACCOUNT_NAME_TAKEN"


async def test_of_many_who_want_one_name_at_once_one_gets_it(auth: AuthService) -> None:
    answers = await asyncio.gather(*(auth.create_account("wanted") for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(answer, pb.Account) for answer in answers) == 1
    refused = [answer for answer in answers if not isinstance(answer, pb.Account)]
    assert {answer.reason for answer in refused if isinstance(answer, AlreadyExists)} == {"ACCOUNT_NAME_TAKEN"}
    assert len(refused) == 7


async def test_a_repeated_creation_gives_the_first_answer(auth: AuthService) -> None:
    request = pb.CreateAccountRequest(request_id=new_id(), name="once")
    first = await auth.call(auth.admin.CreateAccount, request)
    assert await auth.call(auth.admin.CreateAccount, request) == first
    with pytest.raises(AlreadyExists) as caught:
        await auth.call(auth.admin.CreateAccount, pb.CreateAccountRequest(request_id=request.request_id, name="other"))
    assert caught.value.reason == "REQUEST_ID_REUSED"


async def test_an_update_changes_what_the_mask_names_and_nothing_else(auth: AuthService) -> None:
    made = await auth.create_account("before")
    request = pb.UpdateAccountRequest(
        request_id=new_id(),
        account=pb.Account(account_id=made.account_id, name="after", state=pb.ACCOUNT_STATE_SUSPENDED),
    )
    request.update_mask.paths.append("name")
    answer = await auth.call(auth.admin.UpdateAccount, request)
    assert answer.account.name == "after"
    assert answer.account.state == pb.ACCOUNT_STATE_ACTIVE
    assert answer.account.create_time == made.create_time
    await auth.suspend(made)
    found = await auth.call(auth.admin.GetAccount, pb.GetAccountRequest(name="after"))
    assert found.account.state == pb.ACCOUNT_STATE_SUSPENDED


async def test_pages_follow_creation_and_end(auth: AuthService) -> None:
    made = [(await auth.create_account()).account_id for _ in range(7)]
    found, token = [], ""
    while True:
        page = await auth.call(auth.admin.ListAccounts, pb.ListAccountsRequest(page_size=3, page_token=token))
        found += [account.account_id for account in page.accounts]
        token = page.next_page_token
        if not token:
            break
        assert len(page.accounts) == 3
    assert found == made


async def test_a_full_last_page_has_no_token(auth: AuthService) -> None:
    for _ in range(2):
        await auth.create_account()
    page = await auth.call(auth.admin.ListAccounts, pb.ListAccountsRequest(page_size=2))
    assert len(page.accounts) == 2
    assert page.next_page_token == ""


async def test_an_unknown_account_is_not_found(auth: AuthService) -> None:
    for lookup in (
        pb.GetAccountRequest(account_id="acct_" + "0" * 22),
        pb.GetAccountRequest(account_id="acct_\0"),
        pb.GetAccountRequest(name="nobody"),
    ):
        with pytest.raises(NotFound) as caught:
            await auth.call(auth.admin.GetAccount, lookup)
        assert caught.value.reason == "ACCOUNT_NOT_FOUND"


_WRONG: list[tuple[str, Message, str]] = [
    ("CreateAccount", pb.CreateAccountRequest(request_id="r", name=""), "name"),
    ("CreateAccount", pb.CreateAccountRequest(request_id="r", name="x" * 101), "name"),
    ("CreateAccount", pb.CreateAccountRequest(request_id="r", name="a\nb"), "name"),
    ("CreateAccount", pb.CreateAccountRequest(request_id="r", name="a\0b"), "name"),
    ("CreateAccount", pb.CreateAccountRequest(request_id="r", name=" a"), "name"),
    ("CreateAccount", pb.CreateAccountRequest(name="no request id"), "request_id"),
    ("CreateAccount", pb.CreateAccountRequest(request_id="r" * 101, name="a"), "request_id"),
    ("CreateAccount", pb.CreateAccountRequest(request_id="\0", name="a"), "request_id"),
    ("GetAccount", pb.GetAccountRequest(), "lookup"),
    ("GetAccount", pb.GetAccountRequest(account_id=""), "account_id"),
    ("ListKeys", pb.ListKeysRequest(), "account_id"),
    ("GetKey", pb.GetKeyRequest(), "key_id"),
    ("RevokeKey", pb.RevokeKeyRequest(request_id="r"), "key_id"),
    ("GetAccount", pb.GetAccountRequest(name="\0"), "name"),
    ("ListAccounts", pb.ListAccountsRequest(page_size=-1), "page_size"),
    ("ListAccounts", pb.ListAccountsRequest(page_size=1001), "page_size"),
    ("ListAccounts", pb.ListAccountsRequest(page_token="forged"), "page_token"),
    ("UpdateAccount", pb.UpdateAccountRequest(request_id="r"), "update_mask"),
    ("UpdateAccount", pb.UpdateAccountRequest(request_id="r", update_mask=FieldMask(paths=["no"])), "update_mask"),
    ("UpdateAccount", pb.UpdateAccountRequest(request_id="r", update_mask=FieldMask(paths=["state"])), "account.state"),
]


async def test_a_wrong_field_is_named(auth: AuthService) -> None:
    for method, request, field in _WRONG:
        with pytest.raises(InvalidArgument) as caught:
            await auth.call(getattr(auth.admin, method), request)
        assert [violation.field for violation in caught.value.violations] == [field], (method, request)


async def test_a_new_name_that_is_not_allowed_is_refused_and_changes_nothing(auth: AuthService) -> None:
    made = await auth.create_account("good")
    request = pb.UpdateAccountRequest(request_id=new_id(), account=pb.Account(account_id=made.account_id))
    request.update_mask.paths.append("name")
    with pytest.raises(InvalidArgument) as caught:
        await auth.call(auth.admin.UpdateAccount, request)
    assert caught.value.violations[0].field == "account.name"
    found = await auth.call(auth.admin.GetAccount, pb.GetAccountRequest(account_id=made.account_id))
    assert found.account == made

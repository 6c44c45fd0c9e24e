"""Accounts: the paying customers."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import TypedDict

from auth_svc.names import validated_name


class AccountState(Enum):
    """Whether an account's keys may be used. The values are stored."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True)
class Account:
    """A paying customer. `create_time` is UTC."""

    account_id: str
    name: str
    state: AccountState
    create_time: datetime


class AccountChanges(TypedDict, total=False):
    """New values of the fields that the operator may change; what is absent stays."""

    name: str
    state: AccountState


def new_account(account_id: str, name: str, now: datetime) -> Account:
    """An active account.

    Raises:
        InvalidArgument: the name is not allowed.
    """
    return Account(account_id, validated_name("name", name), AccountState.ACTIVE, now)


def updated(account: Account, changes: AccountChanges) -> Account:
    """The account with the changes made.

    Raises:
        InvalidArgument: the new name is not allowed.
    """
    if "name" in changes:
        validated_name("account.name", changes["name"])
    return replace(account, **changes)

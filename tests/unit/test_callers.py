"""Who may call what, as settings say it."""

import pytest

from auth_svc.settings import AuthSettings
from catalog_svc.settings import CatalogSettings
from chassis.callers import callers_from_text, with_defaults
from chassis.loopback import host_of, is_loopback
from chassis.settings import ServiceSettings
from protos.auth.v1 import auth_pb2
from protos.catalog.v1 import catalog_pb2
from protos.usage.v1 import usage_pb2
from usage_svc.settings import UsageSettings


@pytest.mark.parametrize(
    ("settings", "contract"), [(AuthSettings, auth_pb2), (CatalogSettings, catalog_pb2), (UsageSettings, usage_pb2)]
)
def test_every_service_of_a_contract_has_callers_and_there_are_no_others(
    settings: type[ServiceSettings], contract: object
) -> None:
    declared = callers_from_text(settings.model_fields["callers"].default)
    assert set(declared) == set(contract.DESCRIPTOR.services_by_name)  # type: ignore[attr-defined]  # a module
    assert all(declared.values())


def test_what_is_set_replaces_the_default_of_what_it_names_and_of_nothing_else() -> None:
    callers = with_defaults("A=x,y B/Do=z A/Go=*", "A=a B=b C=c")
    assert callers == {
        "A": {"x", "y"},
        "B": {"b"},
        "C": {"c"},
        "B/Do": {"z"},
        "A/Go": {"*"},
    }


def test_nobody_can_be_let_in() -> None:
    assert with_defaults("A=", "A=a")["A"] == frozenset()


@pytest.mark.parametrize("text", ["A", "=x", "Other=x", "Other/Do=x"])
def test_what_cannot_be_read_or_is_not_there_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not of the form|is no service of this process"):
        with_defaults(text, "A=a")


@pytest.mark.parametrize(
    ("address", "host", "here"),
    [
        ("127.0.0.1:7101", "127.0.0.1", True),
        ("127.9.9.9:1", "127.9.9.9", True),
        ("localhost:7101", "localhost", True),
        ("[::1]:7101", "[::1]", True),
        ("ipv4:127.0.0.1:7101", "127.0.0.1", True),
        ("dns:///auth.tollgate.svc:7101", "auth.tollgate.svc", False),
        ("0.0.0.0:7101", "0.0.0.0", False),
        ("10.1.2.3:7101", "10.1.2.3", False),
        ("localhost.example:7101", "localhost.example", False),
    ],
)
def test_which_addresses_are_this_machine(address: str, host: str, here: bool) -> None:
    assert host_of(address) == host
    assert is_loopback(host) is here

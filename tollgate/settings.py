"""Where the command finds the services."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from chassis.loopback import host_of
from chassis.settings import PositiveSeconds, WireSettings

Address = Annotated[str, Field(pattern=r"^$|^\S+:\d{1,5}$")]


class CommandSettings(WireSettings):
    """What the command can be told; each address that is not set is read from what `tollgate up` wrote."""

    model_config = SettingsConfigDict(
        env_prefix="TOLLGATE_COMMAND_", extra="ignore", frozen=True, env_ignore_empty=True
    )

    data_dir: Path = Field(
        Path(".tollgate"), description="Folder of `tollgate up`: databases, secrets, logs, and where its services are."
    )
    auth_address: Address = Field("", description="host:port of auth_svc; empty means the one that `tollgate up` runs.")
    catalog_address: Address = Field(
        "", description="host:port of catalog_svc; empty means the one that `tollgate up` runs."
    )
    usage_address: Address = Field(
        "", description="host:port of usage_svc; empty means the one that `tollgate up` runs."
    )
    timeout_s: PositiveSeconds = Field(15.0, description="How long one call to a service may take.")

    @model_validator(mode="after")
    def _plaintext_stays_here(self) -> Self:
        for name in ("auth_address", "catalog_address", "usage_address"):
            if address := getattr(self, name):
                self.refuse_plaintext(name, host_of(address), "spoken")
        return self

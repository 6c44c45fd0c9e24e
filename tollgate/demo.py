"""The demo account of `make run`: made on the first start, kept afterwards."""

import hashlib
import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from chassis.faults import NotFound
from pricing.usd import nanousd_from_usd, usd_from_nanousd
from protos.auth.v1 import auth_pb2
from protos.usage.v1 import usage_pb2
from tollgate.local_model import MODEL_ID
from tollgate.narration import Narration
from tollgate.services import Services

ACCOUNT_NAME = "demo"
_CREDIT_USD = "5.00"
_KEY_VARIABLE = "KEY"


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo account; the secrets are those of its keys, on the first start only."""

    secret: str | None
    console_secret: str | None  # of the key that signs in to the console
    balance_usd: str


async def prepare_demo(services: Services, imported_secret: str = "") -> Demo:
    """Makes account, credit and key, each under an id of its own: a start that was cut short is only finished.

    A secret that is brought makes a key of its own beside those that there are.

    Raises:
        InvalidArgument: the secret that was brought is none of Tollgate's form.
        AlreadyExists: another account has a key with that secret (SECRET_TAKEN).
    """
    account_request = auth_pb2.CreateAccountRequest(request_id="demo-account", name=ACCOUNT_NAME)
    try:
        account = await services.account(ACCOUNT_NAME)
    except NotFound:
        account = (await services.call(services.auth_admin.CreateAccount, account_request)).account
    credit = usage_pb2.GrantCreditRequest(
        request_id=f"demo-credit-{account.account_id}",
        account_id=account.account_id,
        amount_nanousd=nanousd_from_usd(_CREDIT_USD),
        kind=usage_pb2.ENTRY_KIND_PROMOTION,
        note="for trying it out",
    )
    await services.call(services.usage_admin.GrantCredit, credit)
    key = auth_pb2.CreateKeyRequest(
        request_id=f"demo-key-{account.account_id}{_hash(imported_secret)}",
        key=auth_pb2.Key(account_id=account.account_id, name="demo", scopes=[auth_pb2.SCOPE_INFERENCE]),
        secret=imported_secret,
    )
    secret = (await services.call(services.auth_admin.CreateKey, key)).secret
    console_secret = "" if imported_secret else await _console_secret(services, account.account_id)
    balance = await services.call(services.usage.GetBalance, usage_pb2.GetBalanceRequest(account_id=account.account_id))
    return Demo(secret or None, console_secret or None, usd_from_nanousd(balance.balance.posted_nanousd))


async def _console_secret(services: Services, account_id: str) -> str:
    key = auth_pb2.CreateKeyRequest(
        request_id=f"demo-console-key-{account_id}",
        key=auth_pb2.Key(account_id=account_id, name="console", scopes=[auth_pb2.SCOPE_MANAGEMENT]),
    )
    secret: str = (await services.call(services.auth_admin.CreateKey, key)).secret
    return secret


def _hash(imported_secret: str) -> str:
    return f"-{hashlib.sha256(imported_secret.encode()).hexdigest()[:16]}" if imported_secret else ""


def explain(narration: Narration, demo: Demo, base_url: str, data_dir: Path) -> None:
    """Says how to use it: to be copied and pasted as it stands."""
    tollgate = command_line(data_dir)
    narration.heading("Tollgate is up, with a real model behind it")
    narration.say(f"  base URL   {base_url}")
    narration.say(f"  model      {MODEL_ID}")
    narration.say(f"  account    {ACCOUNT_NAME}, {demo.balance_usd} USD")
    if demo.secret:
        narration.say(f"  key        {demo.secret}")
    else:
        narration.say("  key        the one that the first start showed; another one:")
        narration.say(f"             {tollgate} keys create {ACCOUNT_NAME}")
    narration.say(f"  console    {base_url.removesuffix('/v1')}/console")
    if demo.console_secret:
        narration.say(f"             sign in with {demo.console_secret}")
    else:
        narration.say("             sign in with the other key of the first start; another one:")
        narration.say(f"             {tollgate} keys create {ACCOUNT_NAME} --scope management")
    if demo.secret or demo.console_secret:
        narration.say("\nKeep both keys now: nobody can show them again.")
    narration.heading("Ask it something, from another terminal")
    narration.code(f"{_KEY_VARIABLE}={demo.secret or 'the-key'}\n\n{_curl(base_url)}")
    narration.heading("The same with the OpenAI SDK for Python (pip install openai)")
    narration.code(_python(base_url, demo.secret or "the-key"))
    narration.heading("What that cost")
    narration.code(f"{tollgate} balance {ACCOUNT_NAME}\n{tollgate} usage {ACCOUNT_NAME}")
    narration.say("\nCtrl-C stops everything; balances and keys stay.")


def command_line(data_dir: Path) -> str:
    """How to run this command from the folder where it was started: short where the shell finds it."""
    program = Path(sys.argv[0])
    found = shutil.which("tollgate")
    if program.name != "tollgate":
        shown = f"{shlex.quote(sys.executable)} -m tollgate"
    elif found and Path(found).resolve() == program.resolve():
        shown = "tollgate"
    else:
        absolute = program.absolute()
        shown = os.path.relpath(absolute) if absolute.is_relative_to(Path.cwd()) else str(absolute)
    if data_dir == Path.cwd() / ".tollgate":
        return shown
    return f"TOLLGATE_COMMAND_DATA_DIR={shlex.quote(str(data_dir))} {shown}"


def _curl(base_url: str) -> str:
    return f"""\
curl {base_url}/chat/completions \\
  -H "Authorization: Bearer ${_KEY_VARIABLE}" \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "{MODEL_ID}", "max_tokens": 60,
       "messages": [{{"role": "user", "content": "What is a tollgate?"}}]}}'"""


def _python(base_url: str, key: str) -> str:
    return f"""\
from openai import OpenAI

client = OpenAI(base_url="{base_url}", api_key="{key}")
answer = client.chat.completions.create(
    model="{MODEL_ID}",
    max_tokens=60,
    messages=[{{"role": "user", "content": "What is a tollgate?"}}],
)
print(answer.choices[0].message.content)
print(answer.usage)"""

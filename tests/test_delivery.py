"""The digest goes once to every receiver that is there, and a receiver that is not there harms nothing."""

import json
import logging
import os
import pickle
import signal
import socket
import ssl
import subprocess
import sys
import threading
from datetime import UTC, date, datetime, timedelta
from email import message_from_bytes, policy

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from pipelines import cli, delivery
from pipelines.digest import Digest, Risk
from pipelines.settings import UserError, load

NOW = (0.0, 0.0)
PASSWORD, USER = "p@ss:w/rd", "planner"
LOGIN = "planner:p%40ss%3Aw%2Frd@"
RISK = Risk(
    1, "Acme", "supplier delay", "66 %", "high", "late", 10.0, ("slow",), "Call", "sales", date(2026, 6, 4), "", "R"
)
DIGEST = Digest(
    "2026-06-01.r1", date(2026, 6, 1), 1, "EUR", {"preventable": 10.0, "late_deliveries": 10.0}, None, None, (RISK,), 1,
    (), "https://intranet.example/2026-06-01.html", True,
)  # fmt: skip


class Mailbox:
    def __init__(self):
        self.mails, self.refused = [], set()

    async def handle_RCPT(self, _, __, envelope, address, ___):
        if address in self.refused:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _, __, envelope):
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def mail_server():
    """Start servers that keep what they get: start(**options) returns its mailbox and its port."""
    started = []

    def start(**options):
        box, port = Mailbox(), free_port()
        controller = Controller(box, hostname="127.0.0.1", port=port, server_hostname="localhost", **options)
        controller.start()
        started.append(controller)
        return box, port

    yield start
    for controller in started:
        controller.stop()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for localhost that signs itself: its file, and a context for a server."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name.from_rfc4514_string("CN=localhost")
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("certificate")
    public, private = folder / "cert.pem", folder / "key.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return public, context


def settings(tmp_path, **given):
    return load(tmp_path, environ={}, **given)


def mailing(tmp_path, url, **given):
    return settings(tmp_path, smtp=url, mail_from="bullwhip@x.example", mail_to=("a@x.example", "b@x.example"), **given)


def deliver(told, **named):
    return delivery.deliver(told, DIGEST, **{"waits": NOW, "seconds": 5.0} | named)


# Webhooks


@pytest.mark.parametrize(("name", "key"), [("slack", "blocks"), ("teams", "attachments")])
@pytest.mark.parametrize(("answers", "requests"), [((200,), 1), ((202,), 1), ((500, 200), 2), ((429, 503, 200), 3)])
def test_a_webhook_gets_its_message_once(tmp_path, name, key, answers, requests, webhook):
    with webhook(*answers) as hook:
        told = settings(tmp_path, **{f"{name}_webhook": hook.url})
        assert deliver(told) == {name: {"state": "sent", "why": ""}}
        assert len(hook.came) == requests
        path, kind, body = hook.came[-1]
        assert (path, kind) == ("/services/hush", "application/json")
        assert key in body
        assert deliver(told)[name]["state"] == "sent"
        assert deliver(told, by_hand=True)[name]["state"] == "sent"
        assert len(hook.came) == requests


@pytest.mark.parametrize(
    ("answers", "requests", "why"),
    [
        ((500,), 3, "it answered 500"),
        ((400,), 1, "it answered 400 (invalid_blocks)"),
        ((404,), 1, "it answered 404"),
        ((302,), 1, "it answered 302"),
    ],
)
def test_a_webhook_that_refuses_is_tried_again_by_the_next_run(tmp_path, answers, requests, why, webhook):
    with webhook(*answers) as hook:
        told = settings(tmp_path, slack_webhook=hook.url)
        said = deliver(told)
        assert said == {"slack": {"state": "not delivered", "why": f"{why}; the next run of the week tries again"}}
        assert len(hook.came) == requests
        hook.answers = [200]
        assert deliver(told)["slack"]["state"] == "sent"
        assert len(hook.came) == requests + 1


def test_a_webhook_that_never_answers_is_asked_once_a_run(tmp_path, webhook):
    with webhook(None) as hook, webhook(200) as other:
        told = settings(tmp_path, slack_webhook=hook.url, teams_webhook=other.url)
        said = deliver(told, seconds=0.2)
        assert said["slack"]["why"].startswith("no answer in time after it was sent")
        assert said["teams"]["state"] == "sent"
        assert (len(hook.came), len(other.came)) == (1, 1)


def test_a_receiver_that_is_not_there_is_told_without_its_address(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    told = mailing(
        tmp_path,
        f"smtp://{LOGIN}127.0.0.1:{free_port()}",
        slack_webhook=f"http://127.0.0.1:{free_port()}/services/hush",
    )
    said = deliver(told)
    assert {name: (of["state"], of["why"].split(";")[0]) for name, of in said.items()} == {
        "mail": ("not delivered", "Connection refused"), "slack": ("not delivered", "Connection refused")
    }  # fmt: skip
    ledger = (tmp_path / "digest" / "sent.json").read_text()
    assert not [
        secret for secret in ("hush", "p@ss", "p%40") if secret in json.dumps(said) + ledger + caplog.text + repr(told)
    ]
    assert len(delivery.told(said)) == 2


# Mail


def test_a_mail_goes_to_all_in_one_letter(tmp_path, mail_server):
    box, port = mail_server()
    told = mailing(tmp_path, f"smtp://127.0.0.1:{port}")
    assert deliver(told) == {"mail": {"state": "sent", "why": ""}}
    assert deliver(told)["mail"]["state"] == "sent"
    (mail,) = box.mails
    assert mail["To"] == "a@x.example, b@x.example"
    assert mail["Subject"].startswith("Risks of 2026-06-01: EUR 10.00 at risk")
    assert "Acme" in mail.get_body(("html",)).get_content()


def test_recipients_that_the_server_refuses_are_named(tmp_path, mail_server):
    box, port = mail_server()
    box.refused = {"b@x.example"}
    said = deliver(mailing(tmp_path, f"smtp://127.0.0.1:{port}"))
    assert said == {"mail": {"state": "sent", "why": "but its server refused b@x.example"}}
    box.refused |= {"a@x.example"}
    (tmp_path / "digest" / "sent.json").unlink()
    assert deliver(mailing(tmp_path, f"smtp://127.0.0.1:{port}"))["mail"]["why"].startswith(
        "every recipient refused (550)"
    )


def checked(_, __, ___, ____, given):
    known = (given.login, given.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=known, handled=False)


@pytest.mark.parametrize(
    ("login", "query", "trusted", "why"),
    [
        (LOGIN, "?tls=starttls", True, None),
        ("planner:wrong@", "?tls=starttls", True, "user or password refused (535)"),
        (LOGIN, "", True, "it does not offer STARTTLS, or no way to log in"),
        (LOGIN, "?tls=starttls", False, "its certificate is not trusted"),
        ("", "?tls=starttls", True, "it answered 530"),
    ],
    ids=["encrypted", "wrong password", "open line", "unknown certificate", "no login"],
)
def test_a_password_is_asked_for_over_an_encrypted_line_only(
    tmp_path, mail_server, certificate, monkeypatch, login, query, trusted, why
):
    public, context = certificate
    box, port = mail_server(
        tls_context=context, authenticator=checked, auth_required=True, auth_require_tls=True
    )  # fmt: skip
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(public))
    said = deliver(mailing(tmp_path, f"smtp://{login}localhost:{port}{query}"))
    assert len(box.mails) == (why is None)
    assert said["mail"]["why"].startswith(why or "")
    assert (said["mail"]["state"] == "sent") == (why is None)


def test_nothing_goes_to_a_server_without_the_encryption_asked_for(tmp_path, mail_server):
    box, port = mail_server()
    said = deliver(mailing(tmp_path, f"smtp://127.0.0.1:{port}?tls=starttls"))
    assert said["mail"]["why"].startswith("it does not offer STARTTLS;")
    assert box.mails == []
    said = deliver(mailing(tmp_path, f"smtp://{LOGIN}mail.example:{port}?tls=none"))
    assert said["mail"]["why"].startswith("a password would go over an open line")


def test_a_mail_setting_that_is_missing_is_named(tmp_path):
    said = deliver(settings(tmp_path, mail_to=("a@x.example",)))
    assert said["mail"]["why"].startswith("the setting mail_from and smtp is missing")


# Once


def test_every_publication_is_sent_once(tmp_path, webhook):
    with webhook(200) as hook:
        told = settings(tmp_path, slack_webhook=hook.url)
        for publication in ("2026-06-01.r1", "2026-06-01.r2", "2026-06-01.r1", "2026-06-08.r1"):
            delivery.deliver(told, Digest(publication, *[getattr(DIGEST, n) for n in [*Digest.__slots__][1:]]))
        assert len(hook.came) == 3


def test_a_run_killed_while_it_sends_leaves_the_receiver_in_doubt(tmp_path, webhook):
    code = (
        "import pickle, sys; from pipelines import delivery; from pipelines.settings import load;"
        "found = pickle.load(sys.stdin.buffer);"
        "delivery.deliver(load(sys.argv[1], environ={}, slack_webhook=sys.argv[2]), found)"
    )
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with webhook(None) as hook:
        run = subprocess.Popen([sys.executable, "-c", code, tmp_path, hook.url], env=here, stdin=subprocess.PIPE)
        run.stdin.write(pickle.dumps(DIGEST))
        run.stdin.close()
        try:
            while not hook.came and run.poll() is None:
                threading.Event().wait(0.02)
        finally:
            run.send_signal(signal.SIGKILL)
            run.wait()
        hook.answers = [200]
        told = settings(tmp_path, slack_webhook=hook.url)
        said = deliver(told)
        assert said["slack"]["state"] == "in doubt"
        assert "bullwhip digest --send" in delivery.told(said)[0]
        assert len(hook.came) == 1
        assert deliver(told, by_hand=True)["slack"]["state"] == "sent"
        assert len(hook.came) == 2


def test_two_runs_at_once_send_once(tmp_path, webhook):
    with webhook(None) as hook:
        told = settings(tmp_path, slack_webhook=hook.url)
        first = threading.Thread(target=deliver, args=(told,))
        first.start()
        while not hook.came:
            threading.Event().wait(0.02)
        assert deliver(told)["slack"]["why"] == "another run is sending"
        hook.end.set()
        first.join()
        assert len(hook.came) == 1


def test_a_ledger_that_cannot_be_read_stops_the_sending(tmp_path, webhook):
    (tmp_path / "digest").mkdir()
    (tmp_path / "digest" / "sent.json").write_text("{")
    with webhook(200) as hook:
        with pytest.raises(UserError, match="nobody knows what was sent; mend or delete it"):
            deliver(settings(tmp_path, slack_webhook=hook.url))
        assert hook.came == []


def test_without_a_receiver_nothing_is_written(tmp_path):
    assert deliver(settings(tmp_path)) == {}
    assert list(tmp_path.iterdir()) == []


# Settings


@pytest.mark.parametrize(
    "variable",
    [
        {"BULLWHIP_SMTP": f"smtp://{LOGIN}mail.example:587?tls=maybe"},
        {"BULLWHIP_SMTP": "mail.example"},
        {"BULLWHIP_SLACK_WEBHOOK": "http://hooks.example/services/hush"},
        {"BULLWHIP_TEAMS_WEBHOOK": "hush"},
        {"BULLWHIP_MAIL_TO": "a@x.example, hush hush"},
        {"BULLWHIP_MAIL_FROM": "a@x.example\nBcc: b@x.example"},
        {"BULLWHIP_BOARD_URL": "javascript:alert(1)"},
    ],
    ids=lambda v: next(iter(v)),
)
def test_wrong_addresses_are_refused_without_being_shown(tmp_path, variable):
    with pytest.raises(UserError) as error:
        load(tmp_path, environ=variable)
    assert next(iter(variable)) in str(error.value)
    secret = next(iter(variable)).endswith(("SMTP", "WEBHOOK"))
    assert not secret or ("hush" not in str(error.value) and "p%40" not in str(error.value))


def test_secrets_are_shown_by_their_host_alone(tmp_path):
    told = load(
        tmp_path,
        environ={
            "BULLWHIP_SMTP": f"smtp://{LOGIN}mail.example:587", "BULLWHIP_SLACK_WEBHOOK": "https://hooks.example/services/hush",
            "BULLWHIP_TEAMS_WEBHOOK": "https://u:hush@flows.example:443/x?sig=hush",
        },
    )  # fmt: skip
    for shown in (repr(told), json.dumps(told.public()), told.model_dump_json()):
        assert "hush" not in shown
        assert "p%40" not in shown
        assert "https://hooks.example/***" in shown
        assert "https://flows.example:443/***" in shown
        assert "smtp://planner:***@mail.example:587" in shown


def test_a_command_that_sends_says_what_came_of_it(tmp_path, monkeypatch, capsys, webhook):
    monkeypatch.setattr("pipelines.digest.digest", lambda *_: DIGEST)
    with webhook(400) as hook:
        (tmp_path / "bullwhip.toml").write_text(f'slack_webhook = "{hook.url}"')
        where = ["--workspace", str(tmp_path)]
        assert cli.run(["digest", "--send", *where]) == 6
        out, err = capsys.readouterr()
        assert "slack: not delivered it answered 400 (invalid_blocks)" in out
        assert "bullwhip: digest to slack: not delivered" in err
        hook.answers = [200]
        assert cli.run(["digest", "--send", "--json", *where]) == 0
        assert json.loads(capsys.readouterr().out)["receivers"] == {"slack": {"state": "sent", "why": ""}}
        assert cli.run(["digest", *where]) == 0
        assert capsys.readouterr().out.startswith("# Risks of the week of Mon 1 Jun 2026")
    (tmp_path / "bullwhip.toml").write_text("")
    assert cli.run(["digest", "--send", *where]) == 2

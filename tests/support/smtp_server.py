#!/usr/bin/python3
"""A real SMTP server for the tests: aiosmtpd, told by the address what to answer.

    smtp_server.py DIRECTORY [--port PORT] [--no-pipelining] [--parse] [--smtputf8]
        [--tls starttls|implicit --cert FILE --key FILE [--client-ca FILE] [--tls12]]
        [--auth USER:PASSWORD [--only MECHANISM] [--auth-in-the-clear]]
        [--tokens USER:FILE [--auth-in-the-clear]]

Prints `listening PORT`, appends one JSON line a message to DIRECTORY/mails.jsonl *before* it answers, and exits when
its standard input ends, so that it dies with the test that started it. DIRECTORY/heard.txt holds everything that clients
said, decrypted, with `== PORT` where the connection from that port goes on. What a line of mails.jsonl holds:

    at           when, in seconds of the epoch
    connection   number of the connection, from 1
    from, to     envelope
    data         the message, as Latin-1 text
    headers, subject, text, html
                 only with --parse: as Python's own mail parser understands the message: pairs, decoded

With --tokens it offers XOAUTH2 and nothing else; a line of the file is a token that it takes just then. A refusal comes as Google and
Microsoft give it: details as a challenge first, the code after an empty answer.

The local part of an address says what happens to mail from it or for it (dots separate the parts):

    reject550, reject550.5.1.1     this answer at MAIL FROM or RCPT TO; also defer451, defer451.4.7.1
    late554, late554.5.6.0         this answer to the final dot; nothing is recorded
    stall                          recorded, but the answer to the final dot takes a minute
    drop                           the connection is closed instead of an answer to the final dot; not recorded
    lost                           the same, but recorded
    bye                            recorded and accepted, then the connection is closed
    slow                           recorded and accepted after 50 ms
"""

import argparse
import asyncio
import base64
import email
import email.policy
import json
import os
import re
import ssl
import sys
import threading
import time

try:
    from aiosmtpd.smtp import SMTP, AuthResult
except ImportError:
    sys.exit("aiosmtpd is missing: install it with `apt-get install python3-aiosmtpd`")

ANSWER = re.compile(r"(reject|defer|late)(\d{3})(?:\.(\d+\.\d+\.\d+))?")


def scripted(address, kinds):
    """The answer that the address asks for, if it asks for one of these kinds."""
    found = ANSWER.fullmatch((address or "").partition("@")[0])
    if found and found[1] in kinds:
        return f"{found[2]} {found[3] + ' ' if found[3] else ''}<{address}> as asked"
    return None


class Server(SMTP):
    """Keeps what it hears."""

    line_length_limit = 12288  # RFC 4954, 4: of a line that belongs to a login

    def data_received(self, data):
        if self.transport.get_extra_info("peername"):
            peer = self.transport.get_extra_info("peername")[1]
            with open(os.path.join(self.event_handler.options.directory, "heard.txt"), "ab") as heard:
                heard.write(b"== %d\n" % peer + data)
        super().data_received(data)


class Handler:
    def __init__(self, options):
        self.options = options
        self.connections = 0
        self.file = open(os.path.join(options.directory, "mails.jsonl"), "a", encoding="ascii", buffering=1)

    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        # After STARTTLS the client says it again.
        if not hasattr(server, "number"):
            self.connections += 1
            server.number = self.connections
        session.number = server.number
        if self.options.only:
            responses = [f"250-AUTH {self.options.only}" if line.startswith("250-AUTH ") else line for line in responses]
        if not self.options.no_pipelining:
            responses.insert(1, "250-PIPELINING")
        return responses

    async def auth_XOAUTH2(self, server, args):
        if len(args) == 1:
            said = await server.challenge_auth("")
        else:
            said = base64.b64decode(args[1], validate=True)
        user, _, file = self.options.tokens.partition(":")
        with open(file, encoding="ascii") as tokens:
            good = [f"user={user}\1auth=Bearer {token.strip()}\1\1".encode() for token in tokens]
        if said in good:
            return AuthResult(success=True, auth_data=user)
        details = {"status": "400", "schemes": "Bearer", "scope": "https://mail.example.com/", "said": said.decode("latin-1")}
        if await server.challenge_auth(json.dumps(details)) != b"":
            await server.push("501 5.5.2 expected an empty answer")
            return AuthResult(success=False, handled=True)
        return AuthResult(success=False, handled=False)

    async def handle_MAIL(self, server, session, envelope, address, mail_options):
        answer = scripted(address, ("reject", "defer"))
        if answer is None:
            envelope.mail_from = address
        return answer or "250 2.1.0 ok"

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        answer = scripted(address, ("reject", "defer"))
        if answer is None:
            envelope.rcpt_tos.append(address)
        return answer or "250 2.1.5 ok"

    async def handle_DATA(self, server, session, envelope):
        to = envelope.rcpt_tos[0]
        what = to.partition("@")[0]
        answer = scripted(to, ("late",))
        if answer:
            return answer
        if what == "drop":
            server.transport.close()
            return "250 2.0.0 never seen"
        self.record(session, envelope)
        if what == "lost":
            server.transport.close()
        elif what == "bye":
            server.loop.call_later(0.01, server.transport.close)
        elif what in ("stall", "slow"):
            await asyncio.sleep(60 if what == "stall" else 0.05)
        return f"250 2.0.0 queued for <{to}> as {session.number}"

    def record(self, session, envelope):
        line = {
            "at": time.time(),
            "connection": session.number,
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "data": envelope.original_content.decode("latin-1"),
        }
        if self.options.parse:
            message = email.message_from_bytes(envelope.original_content, policy=email.policy.default)
            line["headers"] = [[name, str(value)] for name, value in message.items()]
            line["subject"] = str(message["subject"])
            line["text"] = message.get_body(("plain",)).get_content()
            html = message.get_body(("html",))
            line["html"] = html and html.get_content()
            line["types"] = [part.get_content_type() for part in message.walk()]
        self.file.write(json.dumps(line) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--no-pipelining", action="store_true")
    parser.add_argument("--parse", action="store_true")
    parser.add_argument("--smtputf8", action="store_true")
    parser.add_argument("--tls", choices=["starttls", "implicit"])
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--client-ca")
    parser.add_argument("--tls12", action="store_true", help="no newer version")
    parser.add_argument("--auth")
    parser.add_argument("--only")
    parser.add_argument("--tokens")
    parser.add_argument("--auth-in-the-clear", action="store_true")
    options = parser.parse_args()

    tls = None
    if options.tls:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.cert, options.key)
        if options.tls12:
            tls.maximum_version = ssl.TLSVersion.TLSv1_2
        if options.client_ca:
            tls.load_verify_locations(options.client_ca)
            tls.verify_mode = ssl.CERT_REQUIRED

    settings = {"enable_SMTPUTF8": options.smtputf8, "auth_exclude_mechanism": ["LOGIN", "PLAIN"] if options.tokens else ["XOAUTH2"]}
    if options.tls == "starttls":
        settings["tls_context"] = tls
    if options.auth:
        user, _, password = options.auth.partition(":")

        def authenticator(server, session, envelope, mechanism, data):
            right = (data.login, data.password) == (user.encode(), password.encode())
            return AuthResult(success=right, handled=False)

        # Over implicit TLS the library does not see that it is encrypted.
        settings |= {"authenticator": authenticator}
    if options.auth or options.tokens:
        settings |= {"auth_required": True, "auth_require_tls": options.tls == "starttls" and not options.auth_in_the_clear}

    def die_with_the_parent():
        while sys.stdin.buffer.read(4096):
            pass
        os._exit(0)

    async def serve():
        loop = asyncio.get_running_loop()
        handler = Handler(options)
        server = await loop.create_server(
            lambda: Server(handler, hostname="smtp.example", loop=loop, **settings),
            "127.0.0.1", options.port, ssl=tls if options.tls == "implicit" else None)
        print("listening", server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    threading.Thread(target=die_with_the_parent, daemon=True).start()
    asyncio.run(serve())


if __name__ == "__main__":
    main()

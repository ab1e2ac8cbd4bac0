"""A real SMTP server on a free port of this machine: prints its port, then one JSON object per mail that it takes.

Receivers named busy, never and hang get 451, 550, and an answer after thirty seconds. With a certificate it speaks STARTTLS and takes
nothing before; with a user it asks for the password `secret`.
"""
import asyncio
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        name = address.split("@")[0]
        if name == "busy":
            return "451 come back later"
        if name == "never":
            return "550 nobody of that name"
        if name == "hang":
            await asyncio.sleep(30)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "tls": session.ssl is not None,
            "user": session.auth_data.login.decode() if session.auth_data else None,
            "content": envelope.content.decode(),
        }
        print(json.dumps(mail), flush=True)
        return "250 OK"


def login(server, session, envelope, mechanism, data):
    good = data.password == b"secret"
    return AuthResult(success=good, handled=False, auth_data=data if good else None)


async def main(certificate, key, user):
    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)

    def session():
        asking = {"authenticator": login, "auth_required": True, "auth_require_tls": bool(context)} if user else {}
        server = SMTP(Handler(), tls_context=context, require_starttls=bool(context), **asking)
        return server

    server = await asyncio.get_running_loop().create_server(session, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    # The parent's end of this pipe closes when it ends.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


arguments = (sys.argv[1:] + ["", "", ""])[:3]
asyncio.run(main(*arguments))

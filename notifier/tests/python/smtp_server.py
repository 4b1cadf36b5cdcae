"""An SMTP server on a free port. Says its port, then each mail that it takes, as a line of JSON; ends with its input.

A mail to busy@example.com is put off twice (451); one to refused@example.com is refused (550).
"""

import asyncio
import email
import email.policy
import json
import sys

from aiosmtpd.smtp import SMTP


class Handler:
    put_off = 0

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address == "refused@example.com":
            return "550 no such mailbox"
        if address == "busy@example.com" and self.put_off < 2:
            self.put_off += 1
            return "451 come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        print(json.dumps({
            "mail_from": envelope.mail_from,
            "rcpt_tos": envelope.rcpt_tos,
            "from": str(mail["From"]),
            "subject": str(mail["Subject"]),
            "message_id": str(mail["Message-ID"]),
            "auto_submitted": str(mail["Auto-Submitted"]),
            "text": mail.get_body(("plain",)).get_content(),
            "html": mail.get_body(("html",)).get_content(),
        }))
        return "250 OK"


async def main():
    loop = asyncio.get_running_loop()
    handler = Handler()
    server = await loop.create_server(lambda: SMTP(handler, enable_SMTPUTF8=True), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1])
    # Ends with the test process, however that ends.
    await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main())

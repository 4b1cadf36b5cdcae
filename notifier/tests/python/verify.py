"""Verifies one webhook, given as JSON on the input, with the Standard Webhooks library."""

import json
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

call = json.load(sys.stdin)
try:
    Webhook(call["secret"]).verify(call["body"], call["headers"])
    print("verified")
except WebhookVerificationError:
    print("refused")

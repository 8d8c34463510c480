"""Makes examples/transfers.ndjson: 10,000 CloudEvents of the bank's own types,
the same on every run. Usage: make_transfers.py > transfers.ndjson"""

import json
import random
import uuid

rng = random.Random(20181114)
ACCOUNTS, EVENTS = 100, 10_000
NAMESPACE = uuid.UUID("6f0c8f0e-6a54-4f0c-9a7e-0a4a6c3f7f11")
numbers = [str(4_000_000_000 + i) for i in range(ACCOUNTS)]
sequence = {}
made = 0


def emit(kind, subject, data, work, cause=None):
    global made
    event = {"specversion": "1.0", "id": str(uuid.uuid5(NAMESPACE, str(made))), "source": "/example", "type": kind,
             "subject": subject, "sequence": str(sequence.get(subject, 0)), "correlationid": str(uuid.uuid5(NAMESPACE, work)),
             "data": data}
    if cause:
        event["causationid"] = cause
    sequence[subject] = sequence.get(subject, 0) + 1
    made += 1
    print(json.dumps(event, separators=(",", ":")))
    return event["id"]


for number in numbers:
    emit("AccountOpened", f"account/{number}", {"number": number, "currency": "GBP"}, f"open {number}")
transfer = 0
while made + 4 <= EVENTS:
    source, target = rng.sample(numbers, 2)
    amount = {"minor": str(rng.randint(1, 99_999)), "currency": "GBP"}
    work, subject = f"transfer {transfer}", f"transaction/{uuid.uuid5(NAMESPACE, f'transaction {transfer}')}"
    pending = emit("TransactionPending", subject, {"kind": "transfer", "from": source, "to": target, "amount": amount}, work)
    emit("Debited", f"account/{source}", {"amount": amount}, work, pending)
    emit("Credited", f"account/{target}", {"amount": amount}, work, pending)
    emit("TransactionAccepted", subject, {}, work, pending)
    transfer += 1

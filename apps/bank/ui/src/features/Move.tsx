// Deposit, withdraw, transfer: one form, one intent, one key.
import { useMutation } from "@tanstack/react-query";
import { useRef, useState } from "react";
import type { Account } from "../api/bank";
import * as bank from "../api/bank";
import { isMore, parse } from "../money";
import { go } from "../route";
import { Alert, Button, Card, Field } from "../ui";

type Kind = "transfer" | "deposit" | "withdrawal";

export function Move({ account }: { account: Account }) {
  const [kind, setKind] = useState<Kind>("transfer");
  const [to, setTo] = useState("");
  const [text, setText] = useState("");
  const [reference, setReference] = useState("");
  const [touched, setTouched] = useState(false);
  // A retry of the same intent has the same key: it is never sent twice.
  const intent = useRef({ body: "", key: "" });

  const parsed = parse(text, account.currency);
  const problems = {
    amount: "error" in parsed ? parsed.error
      : kind !== "deposit" && isMore(parsed.amount, account.available) ? "More than is available" : undefined,
    to: kind !== "transfer" ? undefined
      : !/^[A-Za-z0-9]+$/.test(to.trim()) ? "Enter the receiver's account number"
      : to.trim() === account.number ? "That is this account" : undefined,
  };
  const start = useMutation({
    mutationFn: () => {
      if ("error" in parsed) throw new Error(parsed.error);
      const sides = {
        transfer: { from: account.number, to: to.trim() }, deposit: { to: account.number }, withdrawal: { from: account.number },
      }[kind];
      const body = { kind, ...sides, amount: parsed.amount, ...(kind === "transfer" && reference ? { reference } : {}) };
      const asked = JSON.stringify(body);
      if (intent.current.body !== asked) intent.current = { body: asked, key: crypto.randomUUID() };
      return bank.startTransaction(body, intent.current.key);
    },
    onSuccess: (started) => {
      intent.current = { body: "", key: "" };
      go(`/transactions/${started.transaction.id}`);
    },
  });
  const shown = (problem?: string) => (touched || problem?.startsWith("More") ? problem : undefined);
  return (
    <Card title="Move money">
      <form
        className="space-y-4"
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          setTouched(true);
          if (!problems.amount && !problems.to && !start.isPending) start.mutate();
        }}
      >
        <fieldset className="flex flex-wrap gap-4">
          <legend className="sr-only">Kind</legend>
          {(["transfer", "deposit", "withdrawal"] as const).map((k) => (
            <label key={k} className="flex items-center gap-2 capitalize">
              <input type="radio" name="kind" checked={kind === k} onChange={() => setKind(k)} /> {k}
            </label>
          ))}
        </fieldset>
        {kind === "transfer" && <Field label="To account" inputMode="numeric" value={to} error={shown(problems.to)} onChange={(e) => setTo(e.target.value)} />}
        <Field label={`Amount in ${account.currency}`} inputMode="decimal" value={text} error={shown(problems.amount)} onChange={(e) => setText(e.target.value)} />
        {kind === "transfer" && <Field label="Reference" maxLength={140} value={reference} onChange={(e) => setReference(e.target.value)} />}
        {start.error && <Alert>{start.error.message}</Alert>}
        <Button type="submit" disabled={start.isPending}>{kind === "transfer" ? "Send" : kind === "deposit" ? "Pay in" : "Take out"}</Button>
      </form>
    </Card>
  );
}

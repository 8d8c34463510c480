import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import * as bank from "../api/bank";
import { Alert, Button, Card, Field } from "../ui";

export function SignIn() {
  const queries = useQueryClient();
  const [mode, setMode] = useState<"in" | "new">("in");
  const [username, setUsername] = useState("");
  const [password, setPassword] = useState("");
  const enter = useMutation({
    mutationFn: () => (mode === "in" ? bank.signIn : bank.register)(username, password),
    onSuccess: () => queries.resetQueries({ queryKey: ["init"] }),
  });
  const weak = mode === "new" && password !== "" && password.length < 8;
  return (
    <main className="mx-auto max-w-sm space-y-6 px-4 py-16">
      <header className="text-center">
        <h1 className="font-serif text-3xl">Daybook Bank</h1>
        <p className="text-stone-600 dark:text-stone-400">Every step is written down first.</p>
      </header>
      <Card title={mode === "in" ? "Sign in" : "Register"}>
        <form
          className="space-y-4"
          onSubmit={(event) => {
            event.preventDefault();
            if (!enter.isPending) enter.mutate();
          }}
        >
          <Field label="User name" autoComplete="username" value={username} required onChange={(e) => setUsername(e.target.value)} />
          <Field
            label="Password" type="password" required value={password}
            autoComplete={mode === "in" ? "current-password" : "new-password"}
            error={weak ? "At least 8 characters" : undefined} onChange={(e) => setPassword(e.target.value)}
          />
          {enter.error && <Alert>{enter.error.message}</Alert>}
          <Button type="submit" disabled={enter.isPending || weak}>{mode === "in" ? "Sign in" : "Register"}</Button>
        </form>
      </Card>
      <p className="text-center text-sm">
        {mode === "in" ? "New here? " : "Known here? "}
        <button type="button" className="underline" onClick={() => { setMode(mode === "in" ? "new" : "in"); enter.reset(); }}>
          {mode === "in" ? "Register" : "Sign in"}
        </button>
      </p>
    </main>
  );
}

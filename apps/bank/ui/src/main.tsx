import { MutationCache, QueryCache, QueryClient, QueryClientProvider, useQuery, useQueryClient } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import * as bank from "./api/bank";
import { Problem, isSignedOut } from "./api/client";
import { AccountPage } from "./features/AccountPage";
import { Accounts } from "./features/Accounts";
import { SignIn } from "./features/SignIn";
import { TransactionPage } from "./features/TransactionPage";
import { useLive } from "./live";
import { usePath } from "./route";
import { Button, Card } from "./ui";
import "./style.css";

function App() {
  const start = useQuery({ queryKey: ["init"], queryFn: bank.init });
  // Before the data: what was read while signed in is not shown to whoever sits there afterwards.
  if (isSignedOut(start.error)) return <SignIn />;
  if (start.data) return <SignedIn data={start.data} />;
  if (start.error) return <main className="mx-auto max-w-lg p-8"><Card title="The bank cannot be reached">It is tried again by itself.</Card></main>;
  return <main className="p-8" aria-busy="true">Loading…</main>;
}

function SignedIn({ data }: { data: bank.Init }) {
  const queries = useQueryClient();
  const live = useLive();
  const [, page, id] = usePath().split("/");
  const leave = async () => {
    await bank.signOut();
    queries.clear();
    location.assign("/");
  };
  return (
    <>
      <header className="border-b border-stone-200 bg-white dark:border-stone-700 dark:bg-stone-900">
        <div className="mx-auto flex max-w-3xl flex-wrap items-center justify-between gap-3 px-4 py-3">
          <span className="font-serif text-xl">Daybook Bank</span>
          <span className="flex items-center gap-3 text-sm">
            <span role="status" data-testid="live">{live ? "live" : "reconnecting…"}</span>
            <span>{data.user.username}</span>
            <Button quiet onClick={leave}>Sign out</Button>
          </span>
        </div>
      </header>
      <main className="mx-auto max-w-3xl px-4 py-8">
        {page === "accounts" && id ? <AccountPage key={id} data={data} number={id} />
          : page === "transactions" && id ? <TransactionPage id={id} />
          : <Accounts data={data} />}
      </main>
    </>
  );
}

// Signed out in another window, or idle for too long: whichever request learns it, the page asks who is signed in.
const onError = (error: Error) => {
  if (isSignedOut(error)) queries.invalidateQueries({ queryKey: ["init"] });
};
const queries: QueryClient = new QueryClient({
  queryCache: new QueryCache({ onError: (error, query) => { if (query.queryKey[0] !== "init") onError(error); } }),
  mutationCache: new MutationCache({ onError }),
  defaultOptions: {
    queries: { retry: (count, error) => !(error instanceof Problem && error.status < 500) && count < 20, retryDelay: 1000 },
  },
});

const root = document.getElementById("root");
if (root) {
  createRoot(root).render(<StrictMode><QueryClientProvider client={queries}><App /></QueryClientProvider></StrictMode>);
}

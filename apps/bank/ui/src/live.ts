// The socket of updates: whatever it says, the queries it concerns are read again.
import type { QueryClient } from "@tanstack/react-query";
import { useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";

interface Update {
  kind: "transaction" | "balance" | "line" | "account";
  id?: string;
  account?: string;
}

export function apply(queries: QueryClient, update: Update) {
  if (update.kind === "line" && update.account) queries.invalidateQueries({ queryKey: ["statement", update.account] });
  if (update.kind === "transaction" && update.id) queries.invalidateQueries({ queryKey: ["transaction", update.id] });
  queries.invalidateQueries({ queryKey: ["init"] });
}

/** Keeps the page live; true while connected. */
export function useLive(): boolean {
  const queries = useQueryClient();
  const [live, setLive] = useState(false);
  useEffect(() => {
    let closed = false;
    let backoff = 250;
    let socket: WebSocket | undefined;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const connect = () => {
      socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/api/updates`);
      socket.onopen = () => {
        backoff = 250;
        setLive(true);
        // What happened while we were away was not pushed.
        queries.invalidateQueries();
      };
      socket.onmessage = (message) => apply(queries, JSON.parse(message.data));
      socket.onclose = () => {
        setLive(false);
        if (closed) return;
        // It ends when the session does, too.
        queries.invalidateQueries({ queryKey: ["init"] });
        timer = setTimeout(connect, backoff);
        backoff = Math.min(backoff * 2, 5000);
      };
    };
    connect();
    return () => {
      closed = true;
      clearTimeout(timer);
      socket?.close();
    };
  }, [queries]);
  return live;
}

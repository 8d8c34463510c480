// Where the page is lives in the address, so that reload and back work.
import { useSyncExternalStore } from "react";

const subscribe = (changed: () => void) => {
  addEventListener("popstate", changed);
  return () => removeEventListener("popstate", changed);
};

export const usePath = () => useSyncExternalStore(subscribe, () => location.pathname);

export function go(path: string) {
  history.pushState(null, "", path);
  dispatchEvent(new PopStateEvent("popstate"));
  scrollTo(0, 0);
}

// The connection to `archdsl play`, which prints an address with a token. Without a token, the
// page has no server.

const KEY = "archdsl-token";

// Returns null without a token; else `given`, what the command line names, `ask`, and `fresh`: no
// reload of the page. Throws an Error with a message for people if the server refuses the token.
export async function connect() {
  const address = new URL(location.href);
  const fresh = address.searchParams.get("token");
  if (fresh) {
    sessionStorage.setItem(KEY, fresh);
    address.searchParams.delete("token"); // links to this page do not have it
    history.replaceState(null, "", address);
  }
  const token = sessionStorage.getItem(KEY);
  if (!token) return null;
  const bearer = (token) => ({ Authorization: `Bearer ${token}` });
  const response = await fetch("api/given", { headers: bearer(token) });
  if (!response.ok) {
    sessionStorage.removeItem(KEY);
    throw new Error("This address is old. Open the one that `archdsl play` printed last.");
  }
  const given = await response.json();
  sessionStorage.setItem(KEY, given.token); // that of the address may have been for once
  const headers = bearer(given.token);
  return { given, fresh: Boolean(fresh), ask: (...all) => ask(headers, ...all) };
}

// Yields the answers to a task, one by one. Aborting `signal` ends the work on the server.
async function* ask(headers, task, data, signal) {
  const response = await fetch(`api/${task}`, {
    method: "POST",
    headers: { ...headers, "Content-Type": "application/json" },
    body: JSON.stringify(data),
    signal,
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

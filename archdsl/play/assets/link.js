/**
 * A link holds the whole state of the page behind its #: JSON, compressed and in base64url.
 * A server does not see it.
 */
const LONGEST = 32_000; // characters: longer links are cut by chats and mail programs
const MOST = 1 << 22; // characters of a state: a link may not unpack to gigabytes

/** The link of a state; throws an Error that says so if it is too long. */
export async function encode(state) {
  const packed = await pipe(new TextEncoder().encode(JSON.stringify(state)), new CompressionStream("deflate-raw"));
  let binary = "";
  for (const byte of packed) binary += String.fromCharCode(byte);
  const code = btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  if (code.length > LONGEST) {
    const size = n => n.toLocaleString("en");
    throw new Error(`The spec is too long for a link: ${size(code.length)} characters, at most ${size(LONGEST)}. Share it as a file.`);
  }
  return `#spec=${code}`;
}

/** The state of a link; null without one. Throws an Error that says so if the link is broken. */
export async function decode(hash) {
  const code = /^#spec=([\w-]+)$/.exec(hash)?.[1];
  if (code === undefined && !hash.startsWith("#spec=")) return null;
  try {
    const binary = atob(code.replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = Uint8Array.from(binary, character => character.charCodeAt(0));
    const text = await pipe(bytes, new DecompressionStream("deflate-raw"));
    const state = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(text));
    if (typeof state?.text !== "string") throw new Error("no text");
    return state;
  } catch {
    throw new Error("The link is broken: a part of it is missing, or it was changed. Ask for it again.");
  }
}

async function pipe(bytes, stream) {
  const reader = new Blob([bytes]).stream().pipeThrough(stream).getReader();
  const chunks = [];
  let length = 0;
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    chunks.push(next.value);
    length += next.value.length;
    if (length > MOST) throw new Error("too long");
  }
  const all = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return all;
}

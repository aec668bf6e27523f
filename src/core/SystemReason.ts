/**
 * Why a system call failed, in plain words: not Node's text, which names the call and repeats the path.
 */
import * as Predicate from "effect/Predicate"

/** By the error's `code`. An error without a known one keeps its own message. */
export const of = (error: unknown): string => {
  const known = reasons.get(codeOf(error))
  if (known !== undefined) return known
  // Several addresses were tried: the last error is the one that counts.
  if (error instanceof AggregateError) return of(error.errors.at(-1))
  // Node appends the call and the path to the system's text: "EXYZ: its text, open '/path'".
  const [, text] = /^E[A-Z0-9]+: (.*), \w+(?: '.*)?$/s.exec(messageOf(error)) ?? []
  return text ?? (messageOf(error) || codeOf(error) || "unknown error")
}

/** `ENOENT` for example; empty when the error has none. */
export const codeOf = (error: unknown): string =>
  Predicate.hasProperty(error, "code") && typeof error.code === "string" ? error.code : ""

// internal

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

const reasons: ReadonlyMap<string, string> = new Map([
  ["EACCES", "no permission"],
  ["EPERM", "no permission"],
  ["EROFS", "the file system is read-only"],
  ["ENOENT", "no such file or folder"],
  ["ENOTDIR", "its parent is not a folder"],
  ["ENOSPC", "no space left on the device"],
  ["EDQUOT", "the disk quota is used up"],
  ["ELOOP", "too many symbolic links"],
  ["EISDIR", "it is a folder"],
  ["ENXIO", "no process reads this pipe"],
  ["EPIPE", "the reader has gone"],
  ["ENAMETOOLONG", "its name is too long"],
  ["EMFILE", "out of file descriptors"],
  ["ENFILE", "out of file descriptors"],
  ["EIO", "the device has an error"],
  ["ECONNREFUSED", "connection refused"],
  ["ECONNRESET", "connection reset"],
  ["EHOSTUNREACH", "host unreachable"],
  ["ENETUNREACH", "network unreachable"],
  ["ETIMEDOUT", "timed out"],
  ["ENOTFOUND", "unknown host"],
  ["EAI_AGAIN", "unknown host"]
])

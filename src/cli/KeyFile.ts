/**
 * A file, or standard input, with the tunnel key in its first line.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { RegularFile } from "../core/RegularFile.js"
import { Host } from "./Host.js"

/** The file has no key that can be used. */
export class KeyFileError extends Schema.TaggedError<KeyFileError>()("KeyFileError", {
  /** What named the file: `--key-file` or `NP_KEY_FILE`. */
  option: Schema.String,
  file: Schema.String,
  /** What is wrong, as a clause. */
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.option}=${this.file}: ${this.detail}`
  }
}

/** Where the file is, and what named it. */
export interface Source {
  readonly option: "--key-file" | "NP_KEY_FILE"
  /** `-` is standard input. */
  readonly file: string
}

export const isStandardInput = ({ file }: Source): boolean => file === "-"

/** The first line, without white space around it. Warns when other users can read or write the file. */
export const read = (source: Source): Effect.Effect<Redacted.Redacted, KeyFileError, Host | RegularFile> =>
  Effect.gen(function* () {
    const fail = (detail: string) => new KeyFileError({ ...source, detail })
    if (isStandardInput(source)) {
      const { readLine } = yield* Host
      const bytes = yield* Effect.mapError(readLine, ({ message }) => fail(message))
      return yield* Either.mapLeft(fromBytes(bytes), fail)
    }
    const { read } = yield* RegularFile
    const { bytes, mode } = yield* Effect.mapError(read(source.file), ({ detail, reason }) =>
      fail(`cannot be read: ${detail}${reason === "NotRegular" ? "; --key-file=- reads standard input" : ""}`)
    )
    const key = yield* Either.mapLeft(fromBytes(bytes), fail)
    const access = [(mode & 0o004) !== 0 ? "read" : "", (mode & 0o022) !== 0 ? "write" : ""].filter(
      (word) => word !== ""
    )
    if (access.length > 0) {
      yield* Effect.logWarning(
        `${source.option}=${source.file}: other users can ${access.join(" and ")} it (mode ${mode.toString(8).padStart(4, "0")}); chmod 600 ends that`
      )
    }
    return key
  })

/** The key in the content of a key file, or why there is none. */
export const fromBytes = (bytes: Uint8Array): Either.Either<Redacted.Redacted, string> => {
  const wide = "is encoded as UTF-16; write the key as UTF-8"
  if ((bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff)) return Either.left(wide)
  if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) {
    return Either.left("starts with a byte order mark; write the key as UTF-8 without one")
  }
  const end = bytes.indexOf(0x0a)
  const line = end === -1 ? bytes : bytes.subarray(0, end)
  if (line.includes(0)) return Either.left(isWide(line) ? wide : "has zero bytes in its first line: it is not text")
  const text = Either.try({ try: () => utf8.decode(line).trim(), catch: () => "" })
  if (Either.isLeft(text)) return Either.left("is not encoded as UTF-8, perhaps as Latin-1; write the key as UTF-8")
  if (text.right === "") return Either.left("expected a key in the first line, which is empty")
  if (text.right.startsWith("-----BEGIN ")) {
    return Either.left("is a PEM file, of a certificate or its private key; the parameters crt and key name those")
  }
  if (/\p{Cc}/u.test(text.right)) return Either.left("has control characters in its first line")
  return Either.right(Redacted.make(text.right))
}

// internal

const utf8 = new TextDecoder("utf-8", { fatal: true })

/** Whether every other byte is zero, as in UTF-16 without a byte order mark. A line feed may have cut one in half. */
const isWide = (line: Uint8Array): boolean => {
  const zeros = [0, 0]
  line.forEach((byte, at) => {
    if (byte === 0) zeros[at & 1] = (zeros[at & 1] ?? 0) + 1
  })
  return Math.max(...zeros) >= Math.floor(line.length / 2)
}

/**
 * The option `--key-file`: a file with the tunnel key, which is read again on request.
 */
import * as Options from "@effect/cli/Options"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Tunnel from "../tunnel/Tunnel.js"

/** The file has no key that can be used. */
export class KeyFileError extends Schema.TaggedError<KeyFileError>()("KeyFileError", {
  file: Schema.String,
  reason: Schema.Literal("Unreadable", "Empty")
}) {
  override get message(): string {
    return `--key-file=${this.file}: expected ${this.reason === "Empty" ? "a key in the first line" : "a readable file"}`
  }
}

export const option = Options.text("key-file").pipe(
  Options.withPseudoName("file"),
  Options.withDescription(
    "File with the tunnel key in its first line, instead of the key in the URL; read again on SIGHUP. Environment: NP_KEY_FILE"
  ),
  Options.withFallbackConfig(Config.string("NP_KEY_FILE")),
  Options.optional
)

/** The first line of the file. */
export const read = (file: string): Effect.Effect<Redacted.Redacted, KeyFileError, FileSystem.FileSystem> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const text = yield* Effect.mapError(fs.readFileString(file), () => new KeyFileError({ file, reason: "Unreadable" }))
    const [line = ""] = text.split("\n", 1)
    if (line.trim() === "") return yield* new KeyFileError({ file, reason: "Empty" })
    return Redacted.make(line.trim())
  })

/** Reads the file again on each element of `reloads`, and gives its key to the tunnel. */
export const follow = (
  file: string,
  reloads: Stream.Stream<void>
): Effect.Effect<void, never, FileSystem.FileSystem | Tunnel.Tunnel> =>
  Effect.gen(function* () {
    const { replaceKey } = yield* Tunnel.Tunnel
    const reload = Effect.flatMap(read(file), (key) => replaceKey(Option.some(key)))
    yield* Stream.runForEach(reloads, () =>
      Effect.catchAll(reload, ({ message }) => Effect.logWarning(`${message}; the tunnel key is unchanged`))
    )
  })

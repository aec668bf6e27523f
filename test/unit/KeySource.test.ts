import { assert, describe, it } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { Host } from "../../src/cli/Host.js"
import * as KeyFile from "../../src/cli/KeyFile.js"
import * as KeySource from "../../src/cli/KeySource.js"
import { RegularFile, RegularFileError } from "../../src/core/RegularFile.js"
import * as TunnelUrl from "../../src/url/TunnelUrl.js"
import { utf8 } from "../Bytes.js"

const unused = Effect.die("not used here")
const host = Host.of({
  version: "1.0.0",
  reloads: Stream.empty,
  logReloads: Effect.void,
  readLine: Effect.succeed(utf8("typed\nmore\n")),
  prepare: () => Layer.empty,
  watch: () => unused,
  serveMetrics: (_, tunnel) => tunnel,
  demo: () => unused,
  master: () => unused,
  replaceApiKey: () => unused,
  backup: () => unused,
  restore: () => unused,
  operate: () => unused
})

const modes: Readonly<Record<string, number>> = { private: 0o600, group: 0o640, docker: 0o444, shared: 0o666 }
const files = RegularFile.of({
  read: (file) => {
    const mode = modes[file]
    return mode === undefined
      ? new RegularFileError({ file, reason: "NotRegular", detail: "it is a pipe" })
      : Effect.succeed({ bytes: new Uint8Array(utf8("filed\r\n")), mode })
  }
})

/** The key that a tunnel gets, or what is wrong, and the warnings. */
const start = (given: {
  readonly url?: string
  readonly keyFile?: string
  readonly env?: Readonly<Record<string, string>>
}) => {
  const warnings: Array<string> = []
  const key = Effect.gen(function* () {
    const config = yield* TunnelUrl.parse(given.url ?? "server://:1/:2")
    const source = yield* KeySource.find(Option.fromNullable(given.keyFile))
    return Option.match((yield* KeySource.apply(config, source)).key, {
      onNone: () => "none",
      onSome: Redacted.value
    })
  }).pipe(
    Effect.catchAll(({ message }) => Effect.succeed(message)),
    Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(given.env ?? {})))),
    Effect.provideService(Host, host),
    Effect.provideService(RegularFile, files),
    Effect.provide(
      Logger.replace(
        Logger.defaultLogger,
        Logger.make(({ message }) => void warnings.push(String(message)))
      )
    )
  )
  return { key: Effect.runSync(key), warnings }
}

describe("the tunnel key", () => {
  it.each([
    [{}, "none"],
    [{ url: "server://k@:1/:2" }, "k"],
    [{ env: { NP_KEY: "from the environment" } }, "from the environment"],
    [{ keyFile: "private" }, "filed"],
    [{ env: { NP_KEY_FILE: "private" } }, "filed"],
    [{ keyFile: "-" }, "typed"],
    [{ env: { NP_KEY_FILE: "-" } }, "typed"]
  ])("comes from one place: %j", (given, expected) => {
    assert.deepStrictEqual(start(given), { key: expected, warnings: [] })
  })

  it.each([
    [{ url: "server://k@:1/:2", keyFile: "private" }, "--key-file and the URL"],
    [{ url: "server://k@:1/:2", env: { NP_KEY: "k" } }, "NP_KEY and the URL"],
    [{ url: "server://k@:1/:2", env: { NP_KEY_FILE: "private" } }, "NP_KEY_FILE and the URL"],
    [{ keyFile: "private", env: { NP_KEY: "k" } }, "--key-file and NP_KEY"],
    [{ keyFile: "private", env: { NP_KEY_FILE: "private" } }, "--key-file and NP_KEY_FILE"],
    [{ env: { NP_KEY: "k", NP_KEY_FILE: "private" } }, "NP_KEY and NP_KEY_FILE"]
  ])("in two places is refused by their names: %j", (given, names) => {
    assert.strictEqual(start(given).key, `${names}: expected the tunnel key in one of them; see nodepass --help`)
  })

  it("in a variable that is empty is refused: a tunnel without a key would be open to anyone", () => {
    assert.match(start({ env: { NP_KEY: "" } }).key, /^NP_KEY: expected a key, or no such variable; it is empty;/)
    assert.match(start({ env: { NP_KEY_FILE: " " } }).key, /^NP_KEY_FILE: expected a file, or no such variable;/)
  })

  it("in a file that cannot be read is refused by what named the file", () => {
    assert.strictEqual(
      start({ keyFile: "/dev/fd/63" }).key,
      "--key-file=/dev/fd/63: cannot be read: it is a pipe; --key-file=- reads standard input"
    )
  })

  it("in a file that others can read or write is a warning that has the mode", () => {
    assert.deepStrictEqual(start({ keyFile: "group" }).warnings, [])
    assert.deepStrictEqual(start({ env: { NP_KEY_FILE: "docker" } }).warnings, [
      "NP_KEY_FILE=docker: other users can read it (mode 0444); chmod 600 ends that"
    ])
    assert.deepStrictEqual(start({ keyFile: "shared" }).warnings, [
      "--key-file=shared: other users can read and write it (mode 0666); chmod 600 ends that"
    ])
  })

  it("that standard input had is not read again on SIGHUP", () => {
    const file = (file: string) => ({ _tag: "File", source: { option: "--key-file", file } }) as const
    assert.isTrue(Option.isSome(KeySource.reloadable(file("private"))))
    assert.isTrue(Option.isNone(KeySource.reloadable(file("-"))))
  })
})

describe("the content of a key file", () => {
  const bytes = (text: string, encoding: BufferEncoding) => new Uint8Array(Buffer.from(text, encoding))

  it.each([
    ["plain", utf8("key")],
    ["with a line feed", utf8("key\n")],
    ["of Windows", utf8("key\r\nmore\r\n")],
    ["with white space around", utf8(" \tkey \n")],
    ["with another encoding after the first line", new Uint8Array([...utf8("key\n"), 0xff, 0xfe, 0])]
  ])("%s is the key in its first line", (_, content) => {
    assert.deepStrictEqual(Either.map(KeyFile.fromBytes(content), Redacted.value), Either.right("key"))
  })

  it("may have any text in UTF-8", () => {
    assert.deepStrictEqual(
      Either.map(KeyFile.fromBytes(utf8("schlüssel 鍵")), Redacted.value),
      Either.right("schlüssel 鍵")
    )
  })

  it.each([
    ["UTF-16 with a mark", bytes("\ufeffschlüssel\n", "utf16le"), /^is encoded as UTF-16; write the key as UTF-8$/],
    ["UTF-16, big-endian", new Uint8Array(Buffer.from("\ufeffkey", "utf16le").swap16()), /^is encoded as UTF-16/],
    ["UTF-16 without a mark", bytes("key\n", "utf16le"), /^is encoded as UTF-16/],
    ["UTF-8 with a mark", utf8("\ufeffkey"), /^starts with a byte order mark/],
    ["Latin-1", bytes("schlüssel", "latin1"), /^is not encoded as UTF-8, perhaps as Latin-1/],
    ["a binary file", new Uint8Array([1, 2, 3, 0, 5, 6]), /^has zero bytes in its first line/],
    ["a PEM file", utf8("-----BEGIN PRIVATE KEY-----\nMC4C"), /^is a PEM file, .* crt and key name those$/],
    ["control characters", utf8("ke\u0007y"), /^has control characters/],
    ["nothing", utf8(""), /^expected a key in the first line, which is empty$/],
    ["an empty first line", utf8(" \nkey"), /^expected a key in the first line, which is empty$/]
  ])("as %s is refused with its reason", (_, content, reason) => {
    assert.match(
      Either.getOrElse(Either.flip(KeyFile.fromBytes(content)), () => ""),
      reason
    )
  })
})

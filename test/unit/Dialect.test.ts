import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Address from "../../src/core/Address.js"
import * as NodeDeflate from "../../src/node/process/NodeDeflate.js"
import { Deflate } from "../../src/wire/Deflate.js"
import * as Dialect from "../../src/wire/Dialect.js"
import * as Frame from "../../src/wire/Frame.js"
import * as Signal from "../../src/wire/Signal.js"
import { agree } from "../Ciphers.js"
import { runs } from "../Runs.js"
import { textOf, utf8 } from "../Bytes.js"

/** Both sides of one control connection. */
const dialects = (options?: Dialect.Options) => {
  const { client, server } = agree(1)
  return {
    ours: Dialect.native(client.ciphers, options),
    theirs: Dialect.native(server.ciphers, options),
    /** A message from our side with this text. */
    seal: (text: string) => client.ciphers.sending.encrypt(utf8(text)),
    reflected: Dialect.native(client.ciphers)
  }
}

/** The messages in what a dialect writes. */
const messagesOf = (bytes: Uint8Array) =>
  Either.getOrThrow(Frame.makeDecoder({ limit: Dialect.maxMessageBytes }).push(bytes))

/** One message for each of this many demands, with counts from 1, and a rotation before those at these places. */
const demandsOf = (dialect: Dialect.Dialect, count: number, rotations: ReadonlyArray<number> = []) =>
  Array.from({ length: count }, (_, n) => [
    ...rotations.filter((rotated) => rotated === n).flatMap(() => messagesOf(dialect.rotate())),
    ...messagesOf(dialect.encode({ signals: [{ signal: new Signal.Demand({ count: n + 1 }), number: n }] }))
  ]).flat()

const signalsOf = (received: ReadonlyArray<Either.Either<Dialect.ReceivedLine, Dialect.LineRefused>>) =>
  received.flatMap((line) => (Either.isRight(line) ? line.right.signals : []))

/** What a reader accepts and refuses, up to what is tampered with, which ends the connection. */
const receive = (dialect: Dialect.Dialect, messages: ReadonlyArray<Uint8Array>) => {
  const received: Array<number> = []
  let refused = 0
  for (const message of messages) {
    const lines = dialect.decode(message)
    if (Either.isLeft(lines)) return { received, refused, tampered: true }
    refused += lines.right.filter(Either.isLeft).length
    for (const signal of signalsOf(lines.right)) if (signal._tag === "Demand") received.push(signal.count)
  }
  return { received, refused, tampered: false }
}

/** What an attacker on the way does to the lines. */
type Edit =
  | { readonly _tag: "Alter" | "Insert"; readonly line: number; readonly at: number; readonly byte: number }
  | { readonly _tag: "Repeat" | "Swap"; readonly line: number; readonly to: number }
  | { readonly _tag: "Drop"; readonly line: number }
  | { readonly _tag: "Inject"; readonly line: number; readonly bytes: Uint8Array }

const place = FastCheck.nat(20)
const byte = FastCheck.integer({ min: 0, max: 255 })
const edit: FastCheck.Arbitrary<Edit> = FastCheck.oneof(
  FastCheck.record({
    _tag: FastCheck.constantFrom("Alter" as const, "Insert" as const),
    line: place,
    at: FastCheck.nat(),
    byte
  }),
  FastCheck.record({ _tag: FastCheck.constantFrom("Repeat" as const, "Swap" as const), line: place, to: place }),
  FastCheck.record({ _tag: FastCheck.constant("Drop" as const), line: place }),
  FastCheck.record({ _tag: FastCheck.constant("Inject" as const), line: place, bytes: FastCheck.uint8Array() })
)

const apply = (lines: ReadonlyArray<Uint8Array>, edit: Edit): ReadonlyArray<Uint8Array> => {
  if (edit._tag === "Inject") return lines.toSpliced(edit.line % (lines.length + 1), 0, edit.bytes)
  const index = edit.line % lines.length
  const line = lines[index]
  if (line === undefined) return lines
  switch (edit._tag) {
    case "Alter":
      return lines.with(
        index,
        line.map((byte, at) => (at === edit.at % line.length ? edit.byte : byte))
      )
    case "Insert": {
      const at = edit.at % (line.length + 1)
      return lines.with(index, Frame.concat([line.subarray(0, at), new Uint8Array([edit.byte]), line.subarray(at)]))
    }
    case "Repeat":
      return lines.toSpliced(edit.to % (lines.length + 1), 0, line)
    case "Swap": {
      const to = edit.to % lines.length
      return lines.with(index, lines[to] ?? line).with(to, line)
    }
    case "Drop":
      return lines.toSpliced(index, 1)
  }
}

describe("the native dialect", () => {
  const launch = (n: number, host = "2001:db8::1") =>
    Signal.makeLaunch({
      protocol: "tcp",
      id: Signal.ConnectionId.make(n.toString(16).padStart(8, "0")),
      visitor: Address.make(host, 1 + n),
      entry: Option.some(Address.make("2001:db8::2", 8080))
    })

  it("decodes every signal that it encodes", () => {
    const { ours, theirs } = dialects()
    const signals = [
      new Signal.Terms({ max: 9, receiver: "client", tls: "plain", fingerprint: Option.none() }),
      new Signal.Ping(),
      new Signal.Pong(),
      new Signal.Flush(),
      new Signal.Keep({ count: 3 }),
      launch(5)
    ]
    const numbered = signals.map((signal, number) => ({ signal, number }))
    const messages = messagesOf(ours.encode({ signals: numbered }))
    assert.strictEqual(messages.length, 1)
    assert.deepStrictEqual(
      messages.flatMap((message) => signalsOf(Either.getOrThrow(theirs.decode(message)))),
      signals
    )
  })

  it.each([
    ["without compression", Option.none()],
    ["with compression", Effect.runSync(Effect.provide(Deflate, NodeDeflate.layer)).codec]
  ] as const)("encodes a batch of any size in messages within the limit, and acknowledges once, %s", (_, codec) => {
    for (const count of [1, 100, 1000, 3000]) {
      const { ours, theirs } = dialects({ codec })
      const signals = Array.from({ length: count }, (_, n) => ({ signal: launch(n), number: n }))
      const bytes = ours.encode({ signals, acknowledged: 7 })
      const lines = messagesOf(bytes).flatMap((message) => Either.getOrThrow(theirs.decode(message)))
      assert.deepStrictEqual(
        signalsOf(lines),
        signals.map(({ signal }) => signal)
      )
      assert.deepStrictEqual(
        lines.flatMap((line) => Either.getOrThrow(line).acknowledged ?? []),
        [7]
      )
    }
  })

  it("shows nothing of a signal on the wire, and writes the same signal differently each time", () => {
    const { ours } = dialects()
    const written = Array.from({ length: 10 }, () => ours.encode({ signals: [{ signal: launch(1), number: 1 }] }))
    for (const bytes of written) assert.notInclude(textOf(bytes), "2001:db8")
    assert.strictEqual(new Set(written.map((bytes) => bytes.join())).size, 10)
  })

  it.prop(
    "receives a prefix of the signals, each once and in order, whatever happens to the bytes on the way",
    [FastCheck.integer({ min: 1, max: 12 }), FastCheck.array(edit, { maxLength: 12 }), FastCheck.array(place)],
    ([count, edits, rotations]) => {
      const { ours, theirs } = dialects()
      const { received, refused, tampered } = receive(theirs, edits.reduce(apply, demandsOf(ours, count, rotations)))
      assert.deepStrictEqual(
        received,
        received.map((_, n) => n + 1)
      )
      assert.strictEqual(refused, 0)
      // A missing message goes unnoticed only at the end, until the next one arrives.
      assert.isTrue(received.length <= count && (edits.length > 0 || (received.length === count && !tampered)))
    },
    { fastCheck: { numRuns: runs(180, 1000) } }
  )

  it.prop(
    "notices that a message was removed, altered, repeated or injected by the next message at the latest",
    [FastCheck.integer({ min: 2, max: 12 }), FastCheck.nat(), FastCheck.uniqueArray(place), FastCheck.nat(3)],
    ([count, at, rotations, how]) => {
      const { ours, theirs } = dialects()
      const messages = demandsOf(ours, count, rotations)
      const gap = at % (messages.length - 1)
      const message = messages[gap] ?? new Uint8Array(0)
      const altered = message.map((byte, index) => (index === at % message.length ? byte ^ 1 : byte))
      const edited = [
        messages.toSpliced(gap, 1),
        messages.with(gap, altered),
        messages.toSpliced(gap, 0, message),
        messages.toSpliced(gap, 0, new Uint8Array(40))
      ][how]
      assert.isTrue(receive(theirs, edited ?? []).tampered)
    }
  )

  it("refuses messages of another direction, and of another session", () => {
    const messages = demandsOf(dialects().ours, 3)
    const other = agree(2)
    for (const reader of [dialects().reflected, Dialect.native(other.server.ciphers)]) {
      assert.deepStrictEqual(receive(reader, messages), { received: [], refused: 0, tampered: true })
    }
  })

  it("accepts unknown kinds and parameters", () => {
    const { seal, theirs } = dialects()
    const decode = (text: string) => signalsOf(Either.getOrThrow(theirs.decode(seal(text))))
    assert.deepStrictEqual(decode("//anything?x=1#zz"), [new Signal.Unknown({ kind: "zz" })])
    assert.deepStrictEqual(decode("?n=3&colour=blue#d"), [new Signal.Demand({ count: 3 })])
  })

  it("refuses a line that it cannot decode, and accepts the others of its message and the next ones", () => {
    const { seal, theirs } = dialects()
    const messages = ["?n=0#d", "//short?from=1.2.3.4:5#1\n?n=1#d", "\0no deflate", "?n=2#d"].map(seal)
    assert.deepStrictEqual(receive(theirs, messages), { received: [1, 2], refused: 3, tampered: false })
  })

  it("shows nothing of a refused line in its message", () => {
    const { seal, theirs } = dialects()
    for (const text of ["secret garbage", "//0badbad0?from=secret#1"]) {
      for (const line of Either.getOrThrow(theirs.decode(seal(text)))) {
        assert.notInclude(Either.getOrThrow(Either.flip(line)).message, "secret")
      }
    }
  })
})

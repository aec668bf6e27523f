import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Address from "../src/Address.js"
import * as Deadlines from "../src/Deadlines.js"
import { Crypto } from "../src/Crypto.js"
import * as Dialect from "../src/Dialect.js"
import * as Frame from "../src/Frame.js"
import * as Handshake from "../src/Handshake.js"
import * as Key from "../src/Key.js"
import * as NodeCrypto from "../src/node/NodeCrypto.js"
import * as Settings from "../src/Settings.js"
import * as Signal from "../src/Signal.js"
import * as SimNetwork from "../src/testing/SimNetwork.js"
import * as Simulation from "../src/testing/Simulation.js"
import { type Connection, Transport } from "../src/Transport.js"

const protocol = Fs.readFileSync(Path.join(import.meta.dirname, "../docs/protocol.md"), "utf8")
const transcript = /```transcript\n([\s\S]*?)```/.exec(protocol)?.[1] ?? ""

const nonces = { client: "000102030405060708090a0b0c0d0e0f", server: "101112131415161718191a1b1c1d1e1f" }
const process = "0123456789abcdef"
const id = Signal.ConnectionId.make("9f3c11aa")
const launch = new Signal.Launch({
  protocol: "tcp",
  id,
  visitor: Address.make("203.0.113.7", 50_122),
  entry: Option.some(Address.make("198.51.100.2", 8080))
})
const terms = new Signal.Terms({ max: 1024, receiver: "server", tls: 0, fingerprint: Option.none() })

/** The real primitives; chance gives the nonces of the transcript. */
const fixed = Effect.gen(function* () {
  const real = yield* Crypto
  const key = yield* Key.stretch(Option.some(Redacted.make("abc")))
  const drawing = (hex: string) =>
    Crypto.of({ ...real, randomBytes: () => Effect.succeed(Uint8Array.from(Buffer.from(hex, "hex"))) })
  return { key, client: drawing(nonces.client), server: drawing(nonces.server) }
}).pipe(Effect.provide(NodeCrypto.layer))

/** Writes every line down as it is said. */
const recorded = (connection: Connection, who: string, lines: Array<string>): Connection => ({
  ...connection,
  write: (chunk) => {
    for (const line of Frame.toText(chunk).trimEnd().split("\n")) lines.push(`${who}  ${line}`)
    return connection.write(chunk)
  }
})

const heard = (dialect: Dialect.Dialect, connection: Connection) =>
  Effect.map(connection.read, (chunk) =>
    Option.match(chunk, {
      onNone: () => assert.fail("the peer said nothing"),
      onSome: (bytes) => Either.getOrThrow(dialect.decode(bytes.subarray(0, -1)))
    })
  )

const conversation = ({ client, key, server }: Effect.Effect.Success<typeof fixed>) =>
  Effect.gen(function* () {
    const lines: Array<string> = []
    const network = SimNetwork.make()
    const address = Address.make("server", 10_101)
    const [here, there] = yield* Effect.all([
      Effect.provide(Transport, network.host("client")),
      Effect.provide(Transport, network.host("server"))
    ])
    const listener = yield* there.listen(address)
    const meet = (kind: string) =>
      Effect.gen(function* () {
        const left = recorded(yield* here.connect(address), `C>S ${kind}`, lines)
        return [left, recorded(yield* listener.accept, `S>C ${kind}`, lines)] as const
      })

    const [left, right] = yield* meet("control")
    const [agreement, candidate] = yield* Effect.all(
      [
        Effect.provideService(Handshake.accept(left, { key, client: process, tls: 0 }), Crypto, client),
        Effect.gen(function* () {
          const newcomer = yield* Handshake.receive(right, key)
          if (newcomer._tag === "Join") return assert.fail("a hello was taken for a join")
          const candidate = yield* Handshake.challenge(right, { key, nonce: newcomer.nonce })
          const dialect = Dialect.native(candidate.channel)
          yield* right.write(dialect.encode([terms]))
          return { ...candidate, dialect }
        }).pipe(Effect.provideService(Crypto, server))
      ],
      { concurrency: 2 }
    )
    assert.strictEqual(candidate.client, process)
    assert.deepStrictEqual(agreement.terms, terms)

    yield* left.write(agreement.dialect.encode([new Signal.Ping()]))
    assert.deepStrictEqual(yield* heard(candidate.dialect, right), new Signal.Ping())
    yield* right.write(candidate.dialect.encode([new Signal.Pong()]))
    assert.deepStrictEqual(yield* heard(agreement.dialect, left), new Signal.Pong())

    const [end, other] = yield* meet("pool   ")
    const [given] = yield* Effect.all(
      [
        Effect.provideService(
          Handshake.enter(end, { keys: agreement.keys, count: 0, trust: Option.none() }),
          Transport,
          here
        ),
        Effect.gen(function* () {
          const newcomer = yield* Effect.provideService(Handshake.receive(other, key), Crypto, server)
          if (newcomer._tag === "Hello") return assert.fail("a join was taken for a hello")
          assert.strictEqual(newcomer.session, candidate.keys.id)
          const count = yield* Handshake.joined(other, { keys: candidate.keys, line: newcomer.line })
          yield* Handshake.admit(other, { keys: candidate.keys, count, id })
        })
      ],
      { concurrency: 2 }
    )
    assert.strictEqual(given.id, id)

    yield* right.write(candidate.dialect.encode([launch]))
    assert.deepStrictEqual(yield* heard(agreement.dialect, left), launch)
    return lines
  }).pipe(Effect.scoped, Effect.provide([Deadlines.layer, Settings.layer()]))

describe("docs/protocol.md", () => {
  it.live("its transcript is what both sides say, byte for byte", () =>
    Effect.map(fixed, (fixed) => {
      const { exit } = Simulation.run(conversation(fixed), { seed: 1 })
      assert.strictEqual(`${Exit.getOrElse(exit, (cause) => assert.fail(String(cause))).join("\n")}\n`, transcript)
    })
  )

  it("every limit in it is the code's", () => {
    assert.include(protocol, `| a line of the handshake, either way | ${Handshake.lineLimit} bytes |`)
  })
})

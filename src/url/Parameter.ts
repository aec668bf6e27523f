/**
 * The query parameters of command URLs, each described once: what it is called, what it accepts, what it means.
 */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import * as GoDuration from "../core/GoDuration.js"
import * as TlsMode from "../core/TlsMode.js"
import { Level } from "../core/LogLine.js"

export type Role = "server" | "client" | "master"

/** One query parameter. `mode` means something else on each side, so it is described for each. */
export interface Parameter<S extends Schema.Schema.AnyNoContext = Schema.Schema.AnyNoContext> {
  readonly name: string
  readonly roles: ReadonlyArray<Role>
  /** The text that stands for it when it is not given; without one it is then not there. */
  readonly default?: string
  /** What is accepted, as the end of a sentence that begins with "expected". */
  readonly expected: string
  readonly meaning: string
  /** Text ⇄ value. Every value of the type has a text, in range or not. */
  readonly schema: S
}

const make = <S extends Schema.Schema.AnyNoContext>(parameter: Parameter<S>): Parameter<S> => parameter

const fromText = <A>(
  schema: Schema.Schema<A>,
  decode: (text: string) => Option.Option<A>,
  encode: (value: A) => string
): Schema.Schema<A, string> =>
  Schema.transformOrFail(Schema.String, schema, {
    strict: true,
    encode: (value) => ParseResult.succeed(encode(value)),
    decode: (text, _, ast) =>
      Option.match(decode(text), {
        onNone: () => ParseResult.fail(new ParseResult.Type(ast, text)),
        onSome: ParseResult.succeed
      })
  })

const whole = (from: number, to: number) => (text: string) =>
  /^(0|[1-9]\d{0,8})$/.test(text) && from <= Number(text) && Number(text) <= to
    ? Option.some(Number(text))
    : Option.none()

/** A path that a URL can hold. */
const file = Schema.String.pipe(Schema.filter((text) => text !== "" && !text.includes("\0")))

/** A duration, `0` standing for one that never ends; others are not below `shortest`. */
const limit = (shortest: Duration.Duration) =>
  fromText(
    Schema.DurationFromSelf,
    (text) =>
      GoDuration.fromText(text).pipe(
        Option.map((limit) => (Duration.isZero(limit) ? Duration.infinity : limit)),
        Option.filter(Duration.greaterThanOrEqualTo(shortest))
      ),
    (limit) => (Duration.isFinite(limit) ? GoDuration.toText(limit) : "0")
  )

/** A whole number, `0` standing for no limit. */
const most = (highest: number) =>
  fromText(
    Schema.Number,
    (text) => Option.map(whole(0, highest)(text), (limit) => (limit === 0 ? Infinity : limit)),
    (limit) => (Number.isFinite(limit) ? String(limit) : "0")
  )

const log = make({
  name: "log",
  roles: ["server", "client", "master"],
  default: "info",
  expected: `one of ${Level.literals.join(", ")}`,
  meaning: "how much is logged; event adds a checkpoint each report interval",
  schema: Level
})

const serverTls = make({
  name: "tls",
  roles: ["server"],
  default: "0",
  expected: "0 (plain), 1 (self-signed, made in memory) or 2 (the files crt and key)",
  meaning:
    "how data connections are secured: 0 not at all; 1 by a certificate made at start, which the client is told; 2 by crt and key, which the client verifies",
  schema: TlsMode.FromDigit
})

const crt = make({
  name: "crt",
  roles: ["server", "master"],
  expected: "a certificate file, with tls=2",
  meaning: "certificate chain for tls=2, a PEM file; read again when it changes",
  schema: file
})

const key = make({
  name: "key",
  roles: ["server", "master"],
  expected: "the file of the certificate's key, with tls=2; the tunnel key stands before the @",
  meaning: "the certificate's key for tls=2, a PEM file; the tunnel key stands before the @",
  schema: file
})

const masterTls = make({
  name: "tls",
  roles: ["master"],
  default: "0",
  expected: "0 (http), 1 (https, self-signed, made in memory) or 2 (https, the files crt and key)",
  meaning: "how the API is secured: 0 http; 1 https by a certificate made at start; 2 https by crt and key",
  schema: TlsMode.FromDigit
})

const clientTls = make({
  name: "tls",
  roles: ["client"],
  default: "0",
  expected: "0 (as the server has it), 1 (encrypted) or 2 (encrypted, and the certificate verified)",
  meaning:
    "what is demanded of the server: 0 nothing; 1 encrypted data connections; 2 a certificate for its host from a trusted authority",
  schema: TlsMode.FromDigit
})

const ca = make({
  name: "ca",
  roles: ["client"],
  expected: "a file of certificates",
  meaning: "authorities trusted besides the system's when the server has tls=2, a PEM file",
  schema: file
})

const min = make({
  name: "min",
  roles: ["client"],
  default: "64",
  expected: "a whole number from 1 to 65535",
  meaning: "pool connections kept warm at least",
  schema: fromText(Schema.Number, whole(1, 65535), String)
})

const max = make({
  name: "max",
  roles: ["server"],
  default: "1024",
  expected: "a whole number from 1 to 65535",
  meaning: "pool connections at most",
  schema: fromText(Schema.Number, whole(1, 65535), String)
})

const serverMode = make({
  name: "mode",
  roles: ["server"],
  default: "0",
  expected: "0 (auto), 1 (receive) or 2 (send)",
  meaning: "0 receives visitors at the target if it can listen there, else sends; 1 receives; 2 sends visitors to it",
  schema: Schema.transformLiterals(["0", "auto"], ["1", "receive"], ["2", "send"])
})

const clientMode = make({
  name: "mode",
  roles: ["client"],
  default: "0",
  expected: "0 (auto), 1 (forward) or 2 (through)",
  meaning: "0 forwards if it can listen at the tunnel address, else through the server; 1 forwards alone; 2 through it",
  schema: Schema.transformLiterals(["0", "auto"], ["1", "forward"], ["2", "through"])
})

const servers = make({
  name: "servers",
  roles: ["client"],
  default: "failover",
  expected: "failover (the first that is there) or all (every one at once)",
  meaning:
    "of several servers: failover the first that is there, and back to an earlier one that returns; all every one at once, a pool for each",
  schema: Schema.Literal("failover", "all")
})

const read = make({
  name: "read",
  roles: ["server", "client"],
  default: "10m",
  expected: "a duration such as 30s, 1h30m, 250ms, or 0 for no limit",
  meaning: "a visit silent in both directions this long is closed; 0 never",
  schema: limit(Duration.nanos(1n))
})

const rate = make({
  name: "rate",
  roles: ["server", "client"],
  default: "0",
  expected: "a whole number of Mbit/s from 1 to 100000, or 0 for no limit",
  meaning: "Mbit/s each way, of all visitors together; 0 no limit",
  schema: most(100_000)
})

const slot = make({
  name: "slot",
  roles: ["server", "client"],
  default: "1024",
  expected: "a whole number from 1 to 1000000, or 0 for no limit",
  meaning: "visitors served at once at most, TCP and UDP together; 0 no limit",
  schema: most(1_000_000)
})

const proxy = make({
  name: "proxy",
  roles: ["server", "client"],
  default: "0",
  expected: "0 (none), 1 (PROXY protocol v1) or 2 (v2)",
  meaning: "PROXY protocol header with the visitor's address, sent to a TCP target by the side that dials it",
  schema: Schema.transformLiterals(["0", "none"], ["1", "v1"], ["2", "v2"])
})

const proxyIn = make({
  name: "proxy-in",
  roles: ["server", "client"],
  default: "0",
  expected: "0 (no) or 1 (yes)",
  meaning:
    "1: TCP visitors come through a load balancer that puts a PROXY protocol header first; one without is refused",
  schema: Schema.transformLiterals(["0", false], ["1", true])
})

const lb = make({
  name: "lb",
  roles: ["server", "client"],
  default: "rr",
  expected: "rr (in turn), least (the one with fewest visitors) or hash (by the visitor's address)",
  meaning: "which of several targets a visitor is brought to",
  schema: Schema.Literal("rr", "least", "hash")
})

const check = make({
  name: "check",
  roles: ["server", "client"],
  default: "0",
  expected: "a duration from 100ms, such as 10s, or 0 for never",
  meaning: "how often targets are connected to, to see whether they answer; 0 only visitors find out",
  schema: limit(Duration.millis(100))
})

const cc = make({
  name: "cc",
  roles: ["server", "client"],
  default: "auto",
  expected: "auto, or the name of a congestion control of the system, such as bbr or cubic",
  meaning: "congestion control of connections between the two sides, on Linux; auto: bbr where the path loses much",
  schema: Schema.String.pipe(Schema.pattern(/^[a-z0-9_-]{1,15}$/))
})

const state = make({
  name: "state",
  roles: ["master"],
  expected: "a folder, or postgres://user@host/database with each & in it as %26",
  meaning: "where instances are kept: a folder, NP_STATE_DIR unless it is given, or a PostgreSQL database",
  schema: file
})

const metrics = make({
  name: "metrics",
  roles: ["master"],
  default: "key",
  expected: "key (the API key is asked for) or open (nothing is)",
  meaning: "who may read /metrics: key who has the API key; open everybody",
  schema: Schema.Literal("key", "open")
})

/** Every parameter, in the order of the documentation. */
export const all: ReadonlyArray<Parameter> = [
  log,
  serverTls,
  masterTls,
  crt,
  key,
  clientTls,
  ca,
  min,
  max,
  serverMode,
  clientMode,
  servers,
  read,
  rate,
  slot,
  proxy,
  proxyIn,
  lb,
  check,
  cc,
  state,
  metrics
]

/** The parameters that this side has. */
export const of = (role: Role): ReadonlyArray<Parameter> => all.filter(({ roles }) => roles.includes(role))

const common = {
  log: log.schema,
  read: read.schema,
  rate: rate.schema,
  slot: slot.schema,
  proxy: proxy.schema,
  "proxy-in": proxyIn.schema,
  lb: lb.schema,
  check: check.schema,
  cc: cc.schema
}

/** The texts of a server's parameters ⇄ their values. */
export const Server = Schema.Struct({
  tls: serverTls.schema,
  crt: Schema.optional(crt.schema),
  key: Schema.optional(key.schema),
  max: max.schema,
  mode: serverMode.schema,
  ...common
})

/** The texts of a client's parameters ⇄ their values. */
export const Client = Schema.Struct({
  tls: clientTls.schema,
  ca: Schema.optional(ca.schema),
  min: min.schema,
  mode: clientMode.schema,
  servers: servers.schema,
  ...common
})

/** The texts of a master's parameters ⇄ their values. */
export const Master = Schema.Struct({
  log: log.schema,
  tls: masterTls.schema,
  crt: Schema.optional(crt.schema),
  key: Schema.optional(key.schema),
  state: Schema.optional(state.schema),
  metrics: metrics.schema
})

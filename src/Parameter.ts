/**
 * The query parameters of command URLs, each described once: what it is called, what it accepts, what it means.
 */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import * as GoDuration from "./GoDuration.js"
import { Level } from "./LogLine.js"

export type Role = "server" | "client"

/** One query parameter. `mode` means something else on each side, so it is described for each. */
export interface Parameter<S extends Schema.Schema.AnyNoContext = Schema.Schema.AnyNoContext> {
  readonly name: string
  readonly roles: ReadonlyArray<Role>
  /** The text that stands for it when it is not given; a parameter without one cannot be given in this version. */
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

/** Accepts nothing. */
const unavailable = Schema.String.pipe(Schema.filter(() => false))

const log = make({
  name: "log",
  roles: ["server", "client"],
  default: "info",
  expected: `one of ${Level.literals.join(", ")}`,
  meaning: "how much is logged; event adds a checkpoint each report interval",
  schema: Level
})

const tls = make({
  name: "tls",
  roles: ["server"],
  default: "0",
  expected: "0; this version has plain data connections only",
  meaning: "how data connections are secured",
  schema: Schema.Literal("0")
})

const crt = make({
  name: "crt",
  roles: ["server"],
  expected: "no certificate file with tls=0",
  meaning: "certificate file for tls=2",
  schema: unavailable
})

const key = make({
  name: "key",
  roles: ["server"],
  expected: "no certificate key file with tls=0; the tunnel key stands before the @",
  meaning: "file of the certificate's key for tls=2",
  schema: unavailable
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

const read = make({
  name: "read",
  roles: ["server", "client"],
  default: "10m",
  expected: "a duration such as 30s, 1h30m, 250ms, or 0 for no limit",
  meaning: "a visit silent in both directions this long is closed; 0 never",
  schema: fromText(
    Schema.DurationFromSelf,
    (text) => Option.map(GoDuration.fromText(text), (limit) => (Duration.isZero(limit) ? Duration.infinity : limit)),
    (limit) => (Duration.isFinite(limit) ? GoDuration.toText(limit) : "0")
  )
})

const rate = make({
  name: "rate",
  roles: ["server", "client"],
  default: "0",
  expected: "0; this version does not limit the rate",
  meaning: "Mbit/s each way; 0 no limit",
  schema: Schema.Literal("0")
})

const slot = make({
  name: "slot",
  roles: ["server", "client"],
  default: "1024",
  expected: "a whole number from 1 to 1000000, or 0 for no limit",
  meaning: "visitors served at once at most; 0 no limit",
  schema: fromText(
    Schema.Number,
    (text) => Option.map(whole(0, 1_000_000)(text), (limit) => (limit === 0 ? Infinity : limit)),
    (limit) => (Number.isFinite(limit) ? String(limit) : "0")
  )
})

const proxy = make({
  name: "proxy",
  roles: ["server", "client"],
  default: "0",
  expected: "0; this version sends no PROXY header",
  meaning: "PROXY protocol header sent to the target",
  schema: Schema.Literal("0")
})

/** Every parameter, in the order of the documentation. */
export const all: ReadonlyArray<Parameter> = [
  log,
  tls,
  crt,
  key,
  min,
  max,
  serverMode,
  clientMode,
  read,
  rate,
  slot,
  proxy
]

/** The parameters that this side has. */
export const of = (role: Role): ReadonlyArray<Parameter> => all.filter(({ roles }) => roles.includes(role))

/** The texts of a server's parameters ⇄ their values. */
export const Server = Schema.Struct({
  log: log.schema,
  tls: tls.schema,
  max: max.schema,
  mode: serverMode.schema,
  read: read.schema,
  rate: rate.schema,
  slot: slot.schema,
  proxy: proxy.schema
})

/** The texts of a client's parameters ⇄ their values. */
export const Client = Schema.Struct({
  log: log.schema,
  min: min.schema,
  mode: clientMode.schema,
  read: read.schema,
  rate: rate.schema,
  slot: slot.schema,
  proxy: proxy.schema
})

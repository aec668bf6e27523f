/**
 * The query parameters of command URLs. Each is described here and nowhere else: parsing, `check`, the README table and
 * the config types are made from these records.
 *
 * A field's name here is its name in the config. To add a parameter, add a field to `tunnel`, `server`, `client` or
 * `master`, then use it.
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import { Level } from "../core/LogLine.js"
import * as TlsMode from "../core/TlsMode.js"
import { durationLimit, durationUpTo, FilePath, Flag, networks, numberLimit, wholeNumber } from "./ParameterValue.js"

export type Role = "server" | "client" | "master"

interface Description<Name extends string> {
  /** As the URL has it. */
  readonly name: Name
  /** The values that it accepts; follows "expected". */
  readonly accepts: string
  readonly meaning: string
}

/** The description of one parameter of one role, or of several roles that have it alike. */
export interface Parameter extends Description<string> {
  /** Its default as a text for people; undefined for a parameter that has none. */
  readonly default?: string
}

/** A parameter that has the default's value when the URL does not set it. */
const withDefault = <const Name extends string, A, I extends string>(
  schema: Schema.Schema<A, I>,
  { default: initial, ...description }: Description<Name> & { readonly default: NoInfer<A> }
) =>
  Object.assign(Schema.optionalWith(schema, { default: () => initial }).pipe(Schema.fromKey(description.name)), {
    ...description,
    default: Schema.encodeSync(schema)(initial)
  })

/** A parameter that is `None` when the URL does not set it. */
const optional = <const Name extends string, A, I extends string>(
  schema: Schema.Schema<A, I>,
  description: Description<Name> & { readonly default?: string }
) => Object.assign(Schema.optionalWith(schema, { as: "Option" }).pipe(Schema.fromKey(description.name)), description)

const log = withDefault(Level, {
  name: "log",
  default: "info",
  accepts: `one of ${Level.literals.join(", ")}`,
  meaning: "log level; event logs as info does, and a checkpoint in each report interval"
})

/** The certificate files of servers and masters, which exist with `tls=2` only. */
const certificate = {
  crt: optional(FilePath, {
    name: "crt",
    accepts: "a certificate file, with tls=2",
    meaning: "PEM file of the certificate chain for tls=2; loaded again when it changes"
  }),
  crtKey: optional(FilePath, {
    name: "key",
    accepts: "the private key file of crt, with tls=2; the tunnel key is written before the @",
    meaning: "PEM file of the certificate's private key for tls=2; the tunnel key is written before the @"
  })
}

/** What `read` is for each protocol when the URL does not set it. Keep-alive closes TCP visitors whose machine no longer answers. */
export const readDefaults = { tcp: Duration.infinity, udp: Duration.minutes(10) } as const

/** The parameters that servers and clients have alike. */
const tunnel = {
  read: optional(durationLimit(Duration.nanos(1n)), {
    name: "read",
    default: "TCP 0, UDP 10m",
    accepts: "a duration such as 30s, 1h30m, 250ms, or 0 for no limit",
    meaning:
      "a visitor is closed after this long without bytes in either direction; 0 never. A UDP visitor that has not sent again after an answer is closed after 30s at the latest"
  }),
  rate: withDefault(numberLimit(100_000), {
    name: "rate",
    default: Infinity,
    accepts: "a whole number of Mbit/s from 1 to 100000, or 0 for no limit",
    meaning: "maximum Mbit/s in each direction, for all visitors together; 0 no limit"
  }),
  slot: withDefault(numberLimit(1_000_000), {
    name: "slot",
    default: 65536,
    accepts: "a whole number from 1 to 1000000, or 0 for no limit",
    meaning:
      "maximum number of visitors at the same time, TCP and UDP together, of which UDP gets two thirds; 0 as many as descriptors and memory allow"
  }),
  proxy: withDefault(Schema.transformLiterals(["0", "none"], ["1", "v1"], ["2", "v2"]), {
    name: "proxy",
    default: "none",
    accepts: "0 (none), 1 (PROXY protocol v1) or 2 (v2)",
    meaning: "PROXY protocol header with the visitor's address, sent to TCP targets by the side that connects to them"
  }),
  proxyIn: withDefault(Flag, {
    name: "proxy-in",
    default: false,
    accepts: "0 (no) or 1 (yes)",
    meaning:
      "1: a load balancer sends a PROXY protocol header before each TCP visitor's bytes; a connection without one is refused"
  }),
  balance: withDefault(Schema.Literal("rr", "least", "hash"), {
    name: "lb",
    default: "rr",
    accepts: "rr (round robin), least (fewest visitors) or hash (by the visitor's address)",
    meaning: "how a visitor's target is chosen when there are several"
  }),
  check: withDefault(durationLimit(Duration.millis(100)), {
    name: "check",
    default: Duration.infinity,
    accepts: "a duration from 100ms, such as 10s, or 0 for never",
    meaning:
      "interval of the health checks, which connect to each target; 0 only visitors' connections show whether a target is up"
  }),
  streams: withDefault(Flag, {
    name: "streams",
    default: true,
    accepts: "0 (no) or 1 (yes)",
    meaning:
      "1: visitors share a few connections between the two sides, and survive the loss of one; 0: each visitor has a connection of its own. Both sides must have 1"
  }),
  pool: withDefault(Schema.Literal("oldest", "newest", "fastest"), {
    name: "pool",
    default: "oldest",
    accepts: "oldest (the one idle longest), newest or fastest (lowest round trip)",
    meaning:
      "which idle pool connection is handed out, on the side that visitors connect to: oldest uses all in turn; newest the one that a middlebox can least have forgotten; fastest the one with the lowest round trip, where the system measures it, else as oldest"
  }),
  congestion: withDefault(Schema.String.pipe(Schema.pattern(/^[a-z0-9_-]{1,15}$/)), {
    name: "cc",
    default: "auto",
    accepts: "auto, or a congestion control of the system, such as bbr or cubic",
    meaning: "congestion control of the connections between the two sides, on Linux; auto: bbr on paths with much loss"
  }),
  dns: withDefault(durationUpTo(Duration.hours(24)), {
    name: "dns",
    default: Duration.minutes(5),
    accepts: "a duration up to 24h, such as 30s or 5m, or 0 to look names up each time",
    meaning:
      "how long the addresses of a host name are used before it is looked up again; a connection that fails looks it up at once; 0 each time"
  })
}

const server = {
  log,
  tls: withDefault(TlsMode.FromDigit, {
    name: "tls",
    default: "plain",
    accepts: "0 (plain), 1 (self-signed, made in memory) or 2 (the files crt and key)",
    meaning:
      "TLS of pool connections: 0 none; 1 with a certificate made at start, whose fingerprint the client pins; 2 with crt and key, which the client verifies"
  }),
  ...certificate,
  max: withDefault(wholeNumber(1, 65535), {
    name: "max",
    default: 1024,
    accepts: "a whole number from 1 to 65535",
    meaning: "maximum number of idle pool connections"
  }),
  mode: withDefault(Schema.transformLiterals(["0", "auto"], ["1", "receive"], ["2", "send"]), {
    name: "mode",
    default: "auto",
    accepts: "0 (auto), 1 (receive) or 2 (send)",
    meaning:
      "1 listens for visitors at the target address; 2 connects visitors of the client to it; 0 listens if it can, else connects"
  }),
  ...tunnel
}

const client = {
  log,
  tls: withDefault(TlsMode.FromDigit, {
    name: "tls",
    default: "plain",
    accepts: "0 (whatever the server has), 1 (TLS) or 2 (TLS with a verified certificate)",
    meaning:
      "what the client requires of the server: 0 nothing; 1 TLS on pool connections; 2 also a certificate for its host name from a trusted authority"
  }),
  authorities: optional(FilePath, {
    name: "ca",
    accepts: "a file of certificates",
    meaning: "PEM file of authorities that are trusted in addition to the system's, for servers with tls=2"
  }),
  min: withDefault(wholeNumber(1, 65535), {
    name: "min",
    default: 64,
    accepts: "a whole number from 1 to 65535",
    meaning: "minimum number of idle pool connections"
  }),
  mode: withDefault(Schema.transformLiterals(["0", "auto"], ["1", "forward"], ["2", "through"]), {
    name: "mode",
    default: "auto",
    accepts: "0 (auto), 1 (forward) or 2 (through)",
    meaning:
      "1 forwards without a server: listens at the tunnel address and connects visitors to the target; 2 connects to a server; 0 forwards if it can listen, else connects"
  }),
  servers: withDefault(Schema.Literal("failover", "all"), {
    name: "servers",
    default: "failover",
    accepts: "failover (the first that is up) or all (all at the same time)",
    meaning:
      "with several servers: failover uses the first that is up, and returns to an earlier one when it is up again; all uses all at the same time, with a pool for each"
  }),
  ...tunnel
}

const master = {
  log,
  tls: withDefault(TlsMode.FromDigit, {
    name: "tls",
    default: "plain",
    accepts: "0 (http), 1 (https, self-signed, made in memory) or 2 (https, the files crt and key)",
    meaning: "TLS of the API: 0 http; 1 https with a certificate made at start; 2 https with crt and key"
  }),
  ...certificate,
  state: optional(Schema.Redacted(FilePath), {
    name: "state",
    accepts: "a folder, or postgres://user@host/database with each & written as %26",
    meaning: "where instances are stored: a folder (if not set, NP_STATE_DIR) or a PostgreSQL database"
  }),
  metrics: withDefault(Schema.Literal("key", "open"), {
    name: "metrics",
    default: "key",
    accepts: "key (the API key is required) or open (no key is required)",
    meaning: "who may read /metrics: key clients with the API key; open everyone"
  }),
  trustedProxies: optional(networks, {
    name: "trusted-proxy",
    accepts: "addresses or networks such as 10.0.0.0/8, with commas between",
    meaning:
      "proxies in front of the API: wrong API keys are counted by the address in their Forwarded or X-Forwarded-For; if not set, by the peer's"
  })
}

/** The texts of a server's parameters ⇄ their values. */
export const Server = Schema.Struct(server)

/** The texts of a client's parameters ⇄ their values. */
export const Client = Schema.Struct(client)

/** The texts of a master's parameters ⇄ their values. */
export const Master = Schema.Struct(master)

/** The parameters of each role, in the order of its formatted URL. */
export const byRole: Readonly<Record<Role, ReadonlyArray<Parameter>>> = {
  server: Object.values(server),
  client: Object.values(client),
  master: Object.values(master)
}

const roles = ["server", "client", "master"] as const
const distinct = [...new Set(roles.flatMap((role) => byRole[role]))]
const names = [...new Set(distinct.map(({ name }) => name))]

/** Every parameter with the roles that have it, ordered by name: what the documentation is made from. */
export const all: ReadonlyArray<Parameter & { readonly roles: ReadonlyArray<Role> }> = names.flatMap((name) =>
  distinct
    .filter((parameter) => parameter.name === name)
    .map((parameter) => ({ ...parameter, roles: roles.filter((role) => byRole[role].includes(parameter)) }))
)

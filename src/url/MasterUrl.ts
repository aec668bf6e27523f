/**
 * The command URL of a master: `master://host:port/prefix?parameters`.
 */
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Address from "../core/Address.js"
import * as TlsMode from "../core/TlsMode.js"
import { Level } from "../core/LogLine.js"
import * as Parameter from "./Parameter.js"
import { lines, type Row, ServerTls, tlsFrom } from "./TunnelUrl.js"
import { masked, refuse, type UrlError } from "./UrlError.js"
import * as UrlQuery from "./UrlQuery.js"

/** A master, as its URL describes it. */
export const MasterConfig = Schema.TaggedStruct("Master", {
  /** Where the API is; an empty host is every interface, port 0 a free one. */
  address: Schema.typeSchema(Address.Address),
  /** Before `/v1`: begins with a slash and does not end with one. Defaults to `/api`. */
  prefix: Schema.String,
  log: Level,
  tls: ServerTls,
  /** Where its state is kept: a folder, or a `postgres://` URL, which may hold a password. */
  state: Schema.OptionFromSelf(Schema.RedactedFromSelf(Schema.String)),
  /** Who may read the metrics. */
  metrics: Schema.Literal("key", "open")
})
export type MasterConfig = typeof MasterConfig.Type

/** Whether the text means to be a master's, right or wrong. */
export const isMeant = (text: string): boolean => /^\s*master:/i.test(text)

/** The config that the text describes. White space around the text is passed over. */
export const parse = (text: string): Either.Either<MasterConfig, UrlError> =>
  Either.gen(function* () {
    const [, host = "", path = "", query = "", fragment] =
      /^master:\/\/([^/?#]*)(\/[^?#]*)?(?:\?([^#]*))?(?:#(.*))?$/is.exec(text.trim()) ?? []
    if (!/^master:\/\//i.test(text.trim())) return yield* refuse("url", masked(text), "master://host:port/prefix")
    if (fragment !== undefined) return yield* refuse("fragment", `#${fragment}`, "no # and nothing behind it")
    if (host.includes("@"))
      return yield* refuse("url", masked(text), "nothing before an @: the API key is made at start")
    const address = yield* Option.match(Schema.decodeOption(Address.FromText)(host), {
      onNone: () => refuse("address", host, "host:port, an IPv6 host in brackets"),
      onSome: Either.right
    })
    const prefix = path.replace(/\/+$/, "")
    if (!/^(\/[\w.~-]+)*$/.test(prefix))
      return yield* refuse("prefix", path, "letters, digits and . _ ~ - between slashes")
    const values = Schema.decodeUnknownSync(Parameter.Master)(yield* UrlQuery.parse("master", query))
    return {
      _tag: "Master",
      address,
      prefix: prefix === "" ? "/api" : prefix,
      log: values.log,
      tls: yield* tlsFrom(values),
      state: Option.map(Option.fromNullable(values.state), Redacted.make),
      metrics: values.metrics
    } satisfies MasterConfig
  })

/** The URL with every default spelled out, and no password in it. */
export const format = (config: MasterConfig): string => {
  const query = Object.entries(textsOf(config)).map(([name, value]) => `${name}=${value}`)
  return `master://${config.address}${config.prefix}?${query.join("&")}`
}

/** All that the URL says, defaults included, and what it means. */
export const describe = (config: MasterConfig): ReadonlyArray<Row> => {
  const texts = textsOf(config)
  return [
    {
      part: "role",
      value: "master",
      meaning: "runs tunnels that its API starts, stops and remembers",
      isDefault: false
    },
    { part: "address", value: String(config.address), meaning: "where the API is", isDefault: false },
    { part: "prefix", value: config.prefix, meaning: "before /v1 in its paths", isDefault: config.prefix === "/api" },
    ...Parameter.of("master").flatMap(({ name, meaning, ...parameter }) => {
      const value = texts[name]
      return value === undefined ? [] : [{ part: name, value, meaning, isDefault: value === parameter.default }]
    })
  ]
}

/** The same as aligned lines of text. */
export const report = (config: MasterConfig): string => [format(config), "", ...lines(describe(config))].join("\n")

// internal

const textsOf = ({ log, metrics, state, tls }: MasterConfig): Readonly<Record<string, string>> => ({
  log,
  tls: TlsMode.toDigit(tls.mode),
  ...(tls.mode === "verified" ? { crt: tls.crt, key: tls.key } : {}),
  ...Option.match(state, { onNone: () => ({}), onSome: (state) => ({ state: masked(Redacted.value(state)) }) }),
  metrics
})

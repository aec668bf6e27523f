/**
 * The command URL of a master: `master://host:port/prefix?parameters`.
 */
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Struct from "effect/Struct"
import * as Address from "../core/Address.js"
import * as Parameter from "./Parameter.js"
import * as ServerTls from "./ServerTls.js"
import { masked, refuse, type UrlError } from "./UrlError.js"
import * as UrlQuery from "./UrlQuery.js"
import * as UrlReport from "./UrlReport.js"

/** A master: its address, its prefix, and the parameters that `Parameter.ts` describes. */
export const MasterConfig = Schema.typeSchema(
  Schema.TaggedStruct("Master", {
    /** Where the API listens; an empty host is every interface, port 0 a free one. */
    address: Address.Address,
    /** The path before `/v1`: begins with a slash and does not end with one. Defaults to `/api`. */
    prefix: Schema.String,
    ...Struct.omit(Parameter.Master.fields, "crt", "crtKey"),
    tls: ServerTls.ServerTls
  })
)
export type MasterConfig = typeof MasterConfig.Type

/** Whether the text has the scheme of a master's URL; the rest may be invalid. */
export const hasScheme = (text: string): boolean => /^\s*master:/i.test(text)

/** The config that the text describes. White space around the text is ignored. */
export const parse = (text: string): Either.Either<MasterConfig, UrlError> =>
  Either.gen(function* () {
    const [whole, host = "", path = "", query = "", fragment] =
      /^master:\/\/([^/?#]*)(\/[^?#]*)?(?:\?([^#]*))?(?:#(.*))?$/is.exec(text.trim()) ?? []
    if (whole === undefined) return yield* refuse("url", masked(text), "master://host:port/prefix")
    if (fragment !== undefined)
      return yield* refuse("fragment", `#${fragment}`, "none; a # in a value is written as %23")
    if (host.includes("@")) {
      return yield* refuse("url", masked(text), "nothing before an @: the master generates its API key")
    }
    const address = yield* Option.match(Schema.decodeOption(Address.FromText)(host), {
      onNone: () => refuse("address", host, "host:port, an IPv6 host in brackets"),
      onSome: Either.right
    })
    const prefix = path.replace(/\/+$/, "")
    if (!/^(\/[\w.~-]+)*$/.test(prefix)) {
      return yield* refuse("prefix", path, "letters, digits and . _ ~ - between slashes")
    }
    const { crt, crtKey, tls, ...values } = yield* UrlQuery.decode("master", Parameter.Master, query)
    return {
      _tag: "Master",
      address,
      prefix: prefix === "" ? "/api" : prefix,
      ...values,
      tls: yield* ServerTls.fromParameters({ tls, crt, crtKey })
    }
  })

/** The URL with every default written out. A password in `state` is masked. */
export const format = (config: MasterConfig): string =>
  `master://${config.address}${config.prefix}?${UrlQuery.format("master", textsOf(config))}`

/** What each part of the URL means, defaults included. A password in `state` is masked. */
export const describe = (config: MasterConfig): ReadonlyArray<UrlReport.Row> => [
  {
    part: "role",
    value: "master",
    meaning: "runs the tunnels that clients of its API create, and stores them",
    isDefault: false
  },
  { part: "address", value: String(config.address), meaning: "where the API listens", isDefault: false },
  { part: "prefix", value: config.prefix, meaning: "path before /v1", isDefault: config.prefix === "/api" },
  ...UrlReport.parameterRows("master", textsOf(config))
]

/** The formatted URL, and what each part means, as lines of text. */
export const report = (config: MasterConfig): string => UrlReport.format(format(config), describe(config))

// internal

const textsOf = (config: MasterConfig): UrlQuery.Texts => {
  const texts = Schema.encodeSync(Parameter.Master)({ ...config, ...ServerTls.toParameters(config.tls) })
  return texts.state === undefined ? texts : { ...texts, state: masked(texts.state) }
}

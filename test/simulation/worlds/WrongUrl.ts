/**
 * Command URLs that are invalid in one part, and the part that the error must name.
 */
import * as FastCheck from "effect/FastCheck"
import { textOf, type Url } from "./PairWorld.js"

export interface WrongUrl {
  readonly text: string
  readonly part: string
}

/** Invalid variants of a valid URL. */
export const from = (url: Url): FastCheck.Arbitrary<WrongUrl> =>
  FastCheck.constantFrom(...values(url), ...names(url), ...ends(url), ...together(url), ...wholes(url))

// internal

const wrong = (part: string, url: Url): WrongUrl => ({ part, text: textOf(url) })

const without = ({ query, ...url }: Url, ...names: ReadonlyArray<string>): Url => ({
  ...url,
  query: query.filter(([name]) => !names.includes(name))
})
const and = (url: Url, ...more: Url["query"]): Url => ({ ...url, query: [...url.query, ...more] })
const set = (url: Url, name: string, value: string): Url => and(without(url, name), [name, value])

const number = (url: Url): string => url.targets[0]?.split(":").at(-1) ?? ""

/** Values that a parameter does not accept. */
const values = (url: Url): ReadonlyArray<WrongUrl> => {
  const { role } = url
  const outOf: ReadonlyArray<readonly [string, ReadonlyArray<string>]> = [
    [role === "server" ? "max" : "min", ["0", "65536", "-1", "1.5", "08", "1e3", "many", ""]],
    ["read", ["5", "-1s", "1d", "10 m", "forever", ""]],
    ["rate", ["-1", "100001", "1.5", "10M", ""]],
    ["slot", ["-1", "1000001", "0x10", ""]],
    ["proxy", ["3", "v1", "-1", ""]],
    ["proxy-in", ["2", "yes", "true", ""]],
    ["lb", ["random", "RR", "0", ""]],
    ["check", ["99ms", "1ns", "-10s", "10", ""]],
    ["log", ["loud", "INFO", "0", ""]],
    ["mode", ["3", "-1", "auto", "send", ""]],
    ["tls", ["3", "-1", "yes", ""]],
    ...(role === "client" ? [["servers", ["some", "ALL", "2", ""]] as const] : [])
  ]
  return outOf.flatMap(([name, texts]) => texts.map((text) => wrong(name, set(url, name, text))))
}

/** A parameter that no role has, that only the other role has, or that is repeated. */
const names = (url: Url): ReadonlyArray<WrongUrl> => {
  const foreign = url.role === "server" ? { min: "1", ca: "ca.pem" } : { max: "1", crt: "a.pem", key: "a.pem" }
  return [
    ...["colour", "Mode", "slots", "proxy_in", "np"].map((name) => wrong(name, and(url, [name, "1"]))),
    ...Object.entries(foreign).map(([name, value]) => wrong(name, and(url, [name, value]))),
    ...url.query.map(([name, value]) => wrong(name, and(url, [name, value])))
  ]
}

const ends = (url: Url): ReadonlyArray<WrongUrl> => {
  const { targets, tunnel } = url
  const [first = ""] = targets
  const many = Array.from({ length: 65 }, (_, at) => `10.0.2.${at}:80`)
  return [
    wrong("target", { ...url, targets: [] }),
    wrong("target", { ...url, targets: [...targets, ""] }),
    wrong("target", { ...url, targets: [...targets, first] }),
    wrong("target", { ...url, targets: many }),
    wrong("target", { ...url, targets: ["10.0.1.1"] }),
    wrong("target", { ...url, targets: [`2001:db8::1:${number(url)}`] }),
    wrong("target", { ...url, targets: [`bad host:${number(url)}`] }),
    wrong("target port", { ...url, targets: ["10.0.1.1:0"] }),
    wrong("target port", { ...url, targets: ["10.0.1.1:65536"] }),
    wrong("target port", { ...without(url, "mode"), targets: [tunnel] }),
    wrong("tunnel", { ...url, tunnel: "" }),
    wrong("tunnel", { ...url, tunnel: "10.0.0.1" }),
    ...several(url),
    wrong("tunnel port", { ...url, tunnel: "10.0.0.1:0" }),
    wrong("tunnel port", { ...url, tunnel: "10.0.0.1:99999" })
  ]
}

/** Too many tunnel addresses: a server has one, and so has a client that forwards without a server. */
const several = (url: Url): ReadonlyArray<WrongUrl> => {
  const servers = (count: number) => Array.from({ length: count }, (_, at) => `10.0.3.1:${10_101 + at}`).join(",")
  return url.role === "server"
    ? [wrong("tunnel", { ...url, tunnel: servers(2) })]
    : [
        wrong("tunnel", { ...set(url, "mode", "1"), tunnel: servers(2) }),
        wrong("tunnel", { ...url, tunnel: servers(17) }),
        wrong("tunnel", { ...url, tunnel: `${servers(2)},${servers(1)}` }),
        wrong("tunnel", { ...url, tunnel: `${servers(2)},` })
      ]
}

/** Parameters that are valid alone, and invalid together. */
const together = (url: Url): ReadonlyArray<WrongUrl> => {
  const bare = without(url, "tls", "crt", "key")
  const two = { ...url, targets: ["10.0.1.1:81", "10.0.1.2:81"] }
  return url.role === "server"
    ? [
        wrong("crt", and(bare, ["tls", "2"], ["key", "a.pem"])),
        wrong("key", and(bare, ["tls", "2"], ["crt", "a.pem"])),
        wrong("crt", and(bare, ["crt", "a.pem"])),
        wrong("key", and(bare, ["tls", "1"], ["key", "a.pem"])),
        wrong("target", set(two, "mode", "1"))
      ]
    : [wrong("tls", set(set(url, "mode", "1"), "tls", "1")), wrong("tls", set(set(url, "mode", "1"), "tls", "2"))]
}

const wholes = (url: Url): ReadonlyArray<WrongUrl> => {
  const text = textOf(url)
  return [
    { part: "fragment", text: `${text}#there` },
    { part: "scheme", text: text.replace(url.role, "master") },
    { part: "url", text: text.replace("://", ":") },
    wrong("key", { ...url, key: "100%" }),
    wrong("key", { ...url, key: "a/b" })
  ]
}

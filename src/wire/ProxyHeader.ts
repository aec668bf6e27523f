/**
 * PROXY protocol, versions 1 and 2, for TCP: a header in front of a connection's bytes that names the original client.
 *
 * Source: haproxy doc/proxy-protocol.txt.
 */
import * as Option from "effect/Option"
import * as Address from "../core/Address.js"

export interface Endpoints {
  /** The client, and the address that it connected to. */
  readonly source: Address.Address
  readonly destination: Address.Address
}

/** The header at the start of the bytes so far. `None`: the sender connects for itself, e.g. for a health check. */
export type Decoded =
  | {
      readonly _tag: "Incomplete"
      /** At least this many bytes are needed from the start. */
      readonly bytes: number
    }
  | { readonly _tag: "Invalid" }
  | { readonly _tag: "Header"; readonly length: number; readonly endpoints: Option.Option<Endpoints> }

/**
 * The header that goes in front of the visitor's bytes.
 *
 * When one address is IPv6, both are written as IPv6. When one is not an IP address, the header is `UNKNOWN`, or `LOCAL` in version 2.
 */
export const encode = (version: 1 | 2, { destination, source }: Endpoints): Uint8Array => {
  const [from, to] = [bytesOf(source.host), bytesOf(destination.host)]
  if (version === 1) return ascii(firstVersion(source, destination, from, to))
  if (from === undefined || to === undefined) return Uint8Array.from([...signature, 0x20, 0x00, 0, 0])
  const four = from.length === 4 && to.length === 4
  const hosts = four ? [...from, ...to] : [...asSix(from), ...asSix(to)]
  const ports = [source.port, destination.port].flatMap((port) => [port >> 8, port & 255])
  return Uint8Array.from([...signature, 0x21, four ? 0x11 : 0x21, 0, hosts.length + ports.length, ...hosts, ...ports])
}

/** Decodes either version. More than 65,551 bytes, a header of version 2 with its TLVs, are never `Incomplete`. */
export const decode = (bytes: Uint8Array): Decoded => {
  const second = startsWith(bytes, signature)
  if (second === "no") return decodeFirst(bytes)
  return second === "maybe" ? incomplete(signature.length) : decodeSecond(bytes)
}

// internal

const incomplete = (bytes: number): Decoded => ({ _tag: "Incomplete", bytes })
const invalid: Decoded = { _tag: "Invalid" }
const header = (length: number, endpoints: Option.Option<Endpoints>): Decoded => ({
  _tag: "Header",
  length,
  endpoints
})

const encoder = new TextEncoder()
const decoder = new TextDecoder("latin1")
const ascii = (text: string): Uint8Array => encoder.encode(text)

const signature = [0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a]
const maxFirstBytes = 107

const startsWith = (bytes: Uint8Array, start: ReadonlyArray<number>): "yes" | "maybe" | "no" => {
  const known = Math.min(bytes.length, start.length)
  for (let at = 0; at < known; at++) if (bytes[at] !== start[at]) return "no"
  return known === start.length ? "yes" : "maybe"
}

const firstVersion = (
  source: Address.Address,
  destination: Address.Address,
  from: ReadonlyArray<number> | undefined,
  to: ReadonlyArray<number> | undefined
): string => {
  if (from === undefined || to === undefined) return "PROXY UNKNOWN\r\n"
  const four = from.length === 4 && to.length === 4
  const hosts = four ? [from, to].map((host) => host.join(".")) : [from, to].map((host) => textOfSix(asSix(host)))
  return `PROXY ${four ? "TCP4" : "TCP6"} ${hosts.join(" ")} ${source.port} ${destination.port}\r\n`
}

const first = /^PROXY (?:UNKNOWN(?: [^\r\n]*)?|(TCP4|TCP6) ([^ ]+) ([^ ]+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4}))$/

const decodeFirst = (bytes: Uint8Array): Decoded => {
  if (startsWith(bytes, Array.from(ascii("PROXY "))) === "no") return invalid
  const end = bytes.subarray(0, maxFirstBytes).indexOf(0x0a)
  if (end === -1) return bytes.length >= maxFirstBytes ? invalid : incomplete(bytes.length + 1)
  const line = decoder.decode(bytes.subarray(0, end))
  const match = line.endsWith("\r") ? first.exec(line.slice(0, -1)) : null
  if (match === null) return invalid
  const [, family, from = "", to = "", sourcePort, destinationPort] = match
  if (family === undefined) return header(end + 1, Option.none())
  const length = family === "TCP4" ? 4 : 16
  const known = [from, to].every((host) => bytesOf(host)?.length === length)
  if (!known || Number(sourcePort) > 65_535 || Number(destinationPort) > 65_535) return invalid
  const source = Address.make(normal(from), Number(sourcePort))
  return header(end + 1, Option.some({ source, destination: Address.make(normal(to), Number(destinationPort)) }))
}

const decodeSecond = (bytes: Uint8Array): Decoded => {
  if (bytes.length < 16) return incomplete(16)
  const [command = 0, family = 0, high = 0, low = 0] = bytes.subarray(12)
  const length = high * 256 + low
  if (command >> 4 !== 2 || (command & 15) > 1) return invalid
  if (family >> 4 > 3 || (family & 15) > 2) return invalid
  if (bytes.length < 16 + length) return incomplete(16 + length)
  const whole = 16 + length
  if ((command & 15) === 0) return header(whole, Option.none())
  const size = family === 0x11 ? 4 : family === 0x21 ? 16 : undefined
  if (size === undefined) return header(whole, Option.none())
  if (length < 2 * size + 4) return invalid
  const body = bytes.subarray(16, whole)
  const host = (at: number) => textOf(Array.from(body.subarray(at, at + size)))
  const port = (at: number) => (body[at] ?? 0) * 256 + (body[at + 1] ?? 0)
  const source = Address.make(host(0), port(2 * size))
  const destination = Address.make(host(size), port(2 * size + 2))
  return header(whole, Option.some({ source, destination }))
}

/** The 4 or 16 bytes of an IP address. */
const bytesOf = (text: string): ReadonlyArray<number> | undefined => {
  if (!text.includes(":")) return bytesOfFour(text)
  const [head = "", tail, more] = text.split("::")
  if (more !== undefined) return undefined
  const [left, right] = [groupsOf(head), groupsOf(tail ?? "")]
  if (left === undefined || right === undefined) return undefined
  const missing = 16 - left.length - right.length
  // `::` replaces at least one group.
  if (tail === undefined ? missing !== 0 : missing < 2) return undefined
  return [...left, ...Array.from({ length: missing }, () => 0), ...right]
}

const bytesOfFour = (text: string): ReadonlyArray<number> | undefined => {
  const parts = text.split(".")
  return parts.length === 4 && parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) < 256)
    ? parts.map(Number)
    : undefined
}

/** The bytes of the groups between colons, the last of which may be an IPv4 address. */
const groupsOf = (text: string): ReadonlyArray<number> | undefined => {
  if (text === "") return []
  const groups = text.split(":")
  const bytes = groups.map((group, index) => {
    if (/^[0-9a-fA-F]{1,4}$/.test(group)) return [parseInt(group, 16) >> 8, parseInt(group, 16) & 255]
    return index === groups.length - 1 ? bytesOfFour(group) : undefined
  })
  return bytes.every((group) => group !== undefined) ? bytes.flat() : undefined
}

const mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255]

const asSix = (bytes: ReadonlyArray<number>): ReadonlyArray<number> =>
  bytes.length === 4 ? [...mapped, ...bytes] : bytes

const normal = (host: string): string => textOf(bytesOf(host) ?? [])

/** An IPv4-mapped IPv6 address becomes IPv4, as elsewhere in the program. */
const textOf = (bytes: ReadonlyArray<number>): string => {
  if (bytes.length === 4) return bytes.join(".")
  return mapped.every((byte, at) => bytes[at] === byte) ? bytes.slice(12).join(".") : textOfSix(bytes)
}

/** RFC 5952: `::` replaces the longest run of zero groups, the first of equal runs, and never a single group. */
const textOfSix = (bytes: ReadonlyArray<number>): string => {
  if (mapped.every((byte, at) => bytes[at] === byte)) return `::ffff:${bytes.slice(12).join(".")}`
  const groups = Array.from({ length: 8 }, (_, at) => (bytes[2 * at] ?? 0) * 256 + (bytes[2 * at + 1] ?? 0))
  let [start, length] = [0, 1]
  for (let at = 0; at < 8; at++) {
    const run = groups.slice(at).findIndex((group) => group !== 0)
    const zeros = run === -1 ? 8 - at : run
    if (zeros > length) [start, length] = [at, zeros]
  }
  const text = (part: ReadonlyArray<number>) => part.map((group) => group.toString(16)).join(":")
  return length < 2 ? text(groups) : `${text(groups.slice(0, start))}::${text(groups.slice(start + length))}`
}

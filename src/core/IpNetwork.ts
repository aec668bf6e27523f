/**
 * IP addresses and networks of them, as numbers: `10.0.0.0/8`, `2001:db8::/32`.
 */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

/** An IPv4 address that IPv6 maps (`::ffff:1.2.3.4`) is the IPv4 address. */
export interface IpAddress {
  readonly family: 4 | 6
  readonly value: bigint
}

export const IpNetwork = Schema.Struct({
  family: Schema.Literal(4, 6),
  value: Schema.BigIntFromSelf,
  /** How many of the first bits all addresses of the network have in common. */
  prefix: Schema.Number,
  /** As it was written. */
  text: Schema.String
})
export type IpNetwork = typeof IpNetwork.Type

/** Ignores an IPv6 zone. */
export const addressFrom = (text: string): Option.Option<IpAddress> =>
  text.includes(":") ? ipv6(text.replace(/%.*$/s, "")) : Option.map(ipv4(text), (value) => ({ family: 4, value }))

/** An address alone is the network of that address. */
export const fromText = (text: string): Option.Option<IpNetwork> => {
  const [, host = "", digits] = /^([^/%]+)(?:\/(0|[1-9]\d{0,2}))?$/.exec(text) ?? []
  return Option.flatMap(addressFrom(host), ({ family, value }) => {
    // A mapped IPv4 network is written with the prefix of IPv6.
    const isMapped = family === 4 && host.includes(":")
    const prefix = digits === undefined ? bitsOf(family) : Number(digits) - (isMapped ? 96 : 0)
    return prefix < 0 || prefix > bitsOf(family) ? Option.none() : Option.some({ family, value, prefix, text })
  })
}

export const contains = (network: IpNetwork, { family, value }: IpAddress): boolean => {
  const shift = BigInt(bitsOf(family) - network.prefix)
  return network.family === family && network.value >> shift === value >> shift
}

/** The network of the address with this prefix, as a text that is the same for each address of it. */
export const keyOf = ({ family, value }: IpAddress, prefix: number): string => {
  const shift = BigInt(bitsOf(family) - prefix)
  return `${family}:${((value >> shift) << shift).toString(16)}`
}

// internal

const bitsOf = (family: 4 | 6): 32 | 128 => (family === 4 ? 32 : 128)

const mappedPrefix = 0xffffn

const ipv4 = (text: string): Option.Option<bigint> => {
  const parts = text.split(".")
  return parts.length === 4 && parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) < 256)
    ? Option.some(parts.reduce((value, part) => (value << 8n) | BigInt(part), 0n))
    : Option.none()
}

const ipv6 = (text: string): Option.Option<IpAddress> =>
  Option.gen(function* () {
    const halves = text.split("::")
    if (halves.length > 2) return yield* Option.none()
    const head = yield* groups(halves[0] ?? "", halves.length === 1)
    const tail = yield* groups(halves[1] ?? "", true)
    const zeros = 8 - head.length - tail.length
    if (halves.length === 1 ? zeros !== 0 : zeros < 1) return yield* Option.none()
    const all = [...head, ...Array.from({ length: zeros }, () => 0n), ...tail]
    const value = all.reduce((value, group) => (value << 16n) | group, 0n)
    return value >> 32n === mappedPrefix ? { family: 4, value: value & 0xffff_ffffn } : { family: 6, value }
  })

/** Groups of 16 bits. An IPv4 address may be the last two, at the end of the address only. */
const groups = (text: string, isEnd: boolean): Option.Option<ReadonlyArray<bigint>> =>
  Option.gen(function* () {
    if (text === "") return []
    const found: Array<bigint> = []
    const parts = text.split(":")
    for (const [at, part] of parts.entries()) {
      if (part.includes(".") && isEnd && at === parts.length - 1) {
        const value = yield* ipv4(part)
        found.push(value >> 16n, value & 0xffffn)
      } else if (/^[0-9a-f]{1,4}$/i.test(part)) found.push(BigInt(`0x${part}`))
      else return yield* Option.none()
    }
    return found
  })

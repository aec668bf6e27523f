/**
 * `struct sockaddr_in` and `struct sockaddr_in6`: socket addresses of the kernel as bytes.
 */
import type * as Address from "../../../core/Address.js"
import { addressOf, interfaceIndex, type IpAddress } from "../../socket/NodeHosts.js"

export const families = { AF_INET: 2, AF_INET6: 10 } as const

/** Bytes of the longer one. */
export const maxBytes = 28

export const encode = ({ family, host }: IpAddress, port: number): Uint8Array => {
  const bytes = new Uint8Array(family === 4 ? 16 : maxBytes)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, family === 4 ? families.AF_INET : families.AF_INET6, littleEndian)
  view.setUint16(2, port)
  if (family === 4) bytes.set(host.split(".").map(Number), 4)
  else {
    const [address = "", zone] = host.split("%")
    bytes.set(groupsOf(address), 8)
    if (zone !== undefined) view.setUint32(24, interfaceIndex(zone) ?? 0, littleEndian)
  }
  return bytes
}

/** An IPv4-mapped IPv6 address becomes the IPv4 address. */
export const decode = (bytes: Uint8Array): Address.Address => {
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  const port = view.getUint16(2)
  if (view.getUint16(0, littleEndian) === families.AF_INET) return addressOf(ipv4Text(bytes, 4), port)
  const isMapped = view.getUint32(8) === 0 && view.getUint32(12) === 0 && view.getUint32(16) === 0xffff
  return addressOf(isMapped ? ipv4Text(bytes, 20) : textOf(view), port)
}

// internal

/** The byte order of x64 and arm64. */
const littleEndian = true

/** An IPv4 address as text. */
const ipv4Text = (bytes: Uint8Array, at: number): string =>
  `${bytes[at]}.${bytes[at + 1]}.${bytes[at + 2]}.${bytes[at + 3]}`

/** The 16 bytes of an IPv6 address, whose text may end in an IPv4 address. */
const groupsOf = (host: string): Uint8Array => {
  const bytes = new Uint8Array(16)
  const view = new DataView(bytes.buffer)
  const dotted = /^(.*:)([\d.]+\.\d+)$/.exec(host)
  const [a = 0, b = 0, c = 0, d = 0] = dotted?.[2]?.split(".").map(Number) ?? []
  const text = dotted === null ? host : `${dotted[1]}${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`
  const [head = "", tail] = text.split("::")
  const groups = (part: string) => (part === "" ? [] : part.split(":").map((group) => Number.parseInt(group, 16)))
  groups(head).forEach((group, index) => view.setUint16(2 * index, group))
  const last = groups(tail ?? "")
  last.forEach((group, index) => view.setUint16(2 * (8 - last.length + index), group))
  return bytes
}

/** The text of an IPv6 address in the form of RFC 5952. */
const textOf = (view: DataView): string => {
  const groups = Array.from({ length: 8 }, (_, index) => view.getUint16(8 + 2 * index).toString(16))
  return new URL(`http://[${groups.join(":")}]`).hostname.slice(1, -1)
}

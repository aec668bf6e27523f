/**
 * The network of an address: what one holder of addresses can send from. IPv4 /24, IPv6 /64.
 *
 * Who completes a TCP handshake has the address: there the network is one IPv4 address, or an IPv6 /64.
 *
 * Loopback is a network as any other: a program of this machine that passes others' connections or datagrams on is one
 * holder of an address, whose own visitors it has to limit.
 */
import type * as Address from "../core/Address.js"

/** The prefix as a key. `undefined` for a name. */
export const of = (address: Address.Address): string | undefined => {
  const host = unmapped(address)
  return host.includes(":") ? ipv6Prefix(host) : /^(\d+\.\d+\.\d+)\.\d+$/.exec(host)?.[1]
}

/** The IPv4 address, IPv6 /64 or name of a peer that has opened a TCP connection, as a key. */
export const ofTcpPeer = (address: Address.Address): string => {
  const host = unmapped(address)
  return host.includes(":") ? ipv6Prefix(host) : host
}

// internal

/** The IPv4 address that an IPv4-mapped IPv6 address stands for. */
const unmapped = ({ host }: Address.Address): string =>
  host.startsWith("::") ? host.replace(/^::ffff:(?=\d+\.)/i, "") : host

const ipv6Prefix = (host: string): string => {
  const [head = "", tail] = host.replace(/%.*$/, "").toLowerCase().split("::")
  const left = groupsOf(head)
  const right = groupsOf(tail ?? "")
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - left.length - right.length)
  const groups = [...left, ...Array.from({ length: zeros }, () => "0"), ...right]
  return groups.slice(0, 4).join(":")
}

/** The groups without leading zeros. An IPv4 address at the end stands for two groups. */
const groupsOf = (text: string): ReadonlyArray<string> =>
  text === ""
    ? []
    : text.split(":").flatMap((group) => (group.includes(".") ? ["v4", "v4"] : [group.replace(/^0+(?=.)/, "")]))

/**
 * The network of an address: what one holder of addresses can send from. IPv4 /24, IPv6 /64.
 */
import * as Address from "../core/Address.js"

/** The prefix as a key. `undefined` for a loopback address, which no other machine can forge, and for a name. */
export const of = (address: Address.Address): string | undefined => {
  if (Address.isLoopback(address)) return undefined
  const host = address.host.replace(/^::ffff:(?=\d+\.)/i, "")
  if (!host.includes(":")) return /^(\d+\.\d+\.\d+)\.\d+$/.exec(host)?.[1]
  const [head = "", tail] = host.replace(/%.*$/, "").toLowerCase().split("::")
  const left = groupsOf(head)
  const right = groupsOf(tail ?? "")
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - left.length - right.length)
  const groups = [...left, ...Array.from({ length: zeros }, () => "0"), ...right]
  return groups.slice(0, 4).join(":")
}

// internal

/** The groups without leading zeros. An IPv4 address at the end stands for two groups. */
const groupsOf = (text: string): ReadonlyArray<string> =>
  text === ""
    ? []
    : text.split(":").flatMap((group) => (group.includes(".") ? ["v4", "v4"] : [group.replace(/^0+(?=.)/, "")]))

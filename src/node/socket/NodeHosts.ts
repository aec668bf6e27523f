/**
 * IP addresses, and which of them belong to this machine.
 */
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Address from "../../core/Address.js"

export interface IpAddress {
  readonly host: string
  readonly family: 4 | 6
}

/** The address of a socket. An IPv4-mapped IPv6 address becomes the IPv4 address. */
export const addressOf = (host: string, port: number): Address.Address =>
  Address.make(/^::ffff:[\d.]+$/i.test(host) ? host.slice(7) : host, port)

/** The loopback addresses of this machine, IPv4 first: most services listen there only. */
export const loopback = (): ReadonlyArray<IpAddress> =>
  Object.values(interfaces()).some((addresses) => addresses?.some(({ address }) => address === "::1"))
    ? [ipv4Loopback, { host: "::1", family: 6 }]
    : [ipv4Loopback]

/** Whether an IP address belongs to this machine. */
export const isOwn = (host: string): boolean =>
  Address.isLoopback(Address.make(host, 0)) ||
  Object.values(interfaces()).some((addresses) => addresses?.some(({ address }) => address === host))

/** The index of a network interface of this machine, which the zone of an IPv6 address names. */
export const interfaceIndex = (name: string): number | undefined => {
  // The global addresses of the same interface have the scope 0.
  for (const address of interfaces()[name] ?? []) {
    if (address.family === "IPv6" && address.scopeid !== 0) return address.scopeid
  }
  return indexInLinux(name)
}

/** The name of the interface that a zone means, by its name or by its index. */
export const interfaceName = (zone: string): string | undefined => {
  if (interfaceIndex(zone) !== undefined) return zone
  if (!/^[1-9]\d{0,8}$/.test(zone)) return undefined
  return interfaceNames().find((name) => interfaceIndex(name) === Number(zone))
}

// internal

const ipv4Loopback: IpAddress = { host: "127.0.0.1", family: 4 }

/** Milliseconds for which the list of interfaces is used: reading it takes 0.4 ms. */
const keptMillis = 1000
let kept: { readonly interfaces: ReturnType<typeof Os.networkInterfaces>; readonly at: number } | undefined

const interfaces = () => {
  const now = performance.now()
  if (kept === undefined || now - kept.at > keptMillis) kept = { interfaces: Os.networkInterfaces(), at: now }
  return kept.interfaces
}

/** Linux also has interfaces without an address. */
const interfaceNames = (): ReadonlyArray<string> => {
  try {
    return Fs.readdirSync("/sys/class/net")
  } catch {
    return Object.keys(interfaces())
  }
}

const indexInLinux = (zone: string): number | undefined => {
  if (!/^[^./][^/]*$/.test(zone)) return undefined
  try {
    return Number(Fs.readFileSync(`/sys/class/net/${zone}/ifindex`, "latin1")) || undefined
  } catch {
    return undefined
  }
}

/**
 * The address of the client that sent a request: the peer of the connection, or the address that a trusted proxy names.
 *
 * Source: RFC 7239, and the header `X-Forwarded-For` that came before it.
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as IpNetwork from "../core/IpNetwork.js"

export class ClientAddress extends Context.Tag("nodepass/ClientAddress")<
  ClientAddress,
  {
    /** A text that is the same for requests of one client: its IPv4 address, or the /64 of its IPv6 address. */
    readonly of: (request: Pick<HttpServerRequest.HttpServerRequest, "headers" | "remoteAddress">) => string
  }
>() {}

export interface Options {
  /** Proxies whose headers are believed. */
  readonly trusted: ReadonlyArray<IpNetwork.IpNetwork>
}

/**
 * Reads the headers from the right, where the proxies add: the client is the first address that is not a trusted proxy. What
 * is further left may be forged. When both headers are there and differ, one of them may be the client's own, and the
 * peer counts.
 */
export const layer = ({ trusted }: Options): Layer.Layer<ClientAddress> => {
  const isTrusted = (address: IpNetwork.IpAddress) => trusted.some((network) => IpNetwork.contains(network, address))
  /** The client by the hops that the proxies have added, the nearest last. */
  const walk = (peer: IpNetwork.IpAddress, hops: ReadonlyArray<Option.Option<IpNetwork.IpAddress>>) => {
    let client = peer
    for (const hop of hops.toReversed()) {
      if (Option.isNone(hop)) break
      client = hop.value
      if (!isTrusted(client)) break
    }
    return client
  }
  return Layer.succeed(ClientAddress, {
    of: ({ headers, remoteAddress }) => {
      const text = Option.getOrElse(remoteAddress, () => "")
      const peer = Option.getOrUndefined(IpNetwork.addressFrom(text))
      if (peer === undefined) return text
      if (!isTrusted(peer)) return keyOf(peer)
      const found = [xForwardedFor(headers["x-forwarded-for"]), forwarded(headers["forwarded"])].flatMap((hops) =>
        hops.length === 0 ? [] : [keyOf(walk(peer, hops))]
      )
      const [first = keyOf(peer), second = first] = found
      return first === second ? first : keyOf(peer)
    }
  })
}

// internal

/** One holder of IPv6 addresses has at least a /64. */
const keyOf = (address: IpNetwork.IpAddress): string => IpNetwork.keyOf(address, address.family === 4 ? 32 : 64)

type Hops = ReadonlyArray<Option.Option<IpNetwork.IpAddress>>

const xForwardedFor = (header: string | undefined): Hops =>
  header === undefined ? [] : header.split(",").map((part) => addressOf(part.trim()))

/** The `for` of each element. An element without one, such as `for=unknown`, is a hop without an address. */
const forwarded = (header: string | undefined): Hops =>
  header === undefined
    ? []
    : partsOf(header, ",").map((element) => {
        const pair = partsOf(element, ";").find((pair) => /^\s*for=/i.test(pair))
        return addressOf(
          (pair ?? "")
            .replace(/^\s*for=/i, "")
            .trim()
            .replace(/^"(.*)"$/, "$1")
        )
      })

/** Splits at the separator, except in quoted strings. */
const partsOf = (text: string, separator: "," | ";"): ReadonlyArray<string> =>
  text.match(separator === "," ? /(?:"(?:\\.|[^"\\])*"?|[^",])+/g : /(?:"(?:\\.|[^"\\])*"?|[^";])+/g) ?? []

/** With or without a port: `1.2.3.4:5`, `[::1]:5`, `::1`. */
const addressOf = (text: string): Option.Option<IpNetwork.IpAddress> => {
  const [, inBrackets, withPort] = /^\[([^\]]*)\](?::\w+)?$|^([\d.]+):\w+$/.exec(text) ?? []
  return IpNetwork.addressFrom(inBrackets ?? withPort ?? text)
}

/**
 * Configs as URLs without a word too many would have them, but for what is given.
 */
import * as Either from "effect/Either"
import * as TunnelUrl from "../../../src/url/TunnelUrl.js"

const parse = (text: string): TunnelUrl.TunnelConfig => Either.getOrThrow(TunnelUrl.parse(text))

export const server = (fields?: Partial<TunnelUrl.ServerConfig>): TunnelUrl.ServerConfig => {
  const config = parse("server://server:10101/target:80")
  if (config._tag !== "Server") throw new Error("it is not a server")
  return { ...config, ...fields }
}

export const client = (fields?: Partial<TunnelUrl.ClientConfig>): TunnelUrl.ClientConfig => {
  const config = parse("client://server:10101/target:80")
  if (config._tag !== "Client") throw new Error("it is not a client")
  return { ...config, ...fields }
}

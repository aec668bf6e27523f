/**
 * A tunnel's side on a simulated host, from the text of its URL, for as long as the scope is open.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Settings from "../../../src/transport/Settings.js"
import * as SimCertificates from "../../../src/testing/SimCertificates.js"
import * as SimCrypto from "../../../src/testing/SimCrypto.js"
import type { Transport } from "../../../src/transport/Transport.js"
import * as Tunnel from "../../../src/tunnel/Tunnel.js"
import * as TunnelUrl from "../../../src/url/TunnelUrl.js"

export interface Options {
  /** Its host's sockets. */
  readonly transport: Layer.Layer<Transport>
  /** The command URL. */
  readonly text: string
  /** Distinguishes it from other hosts. */
  readonly seed: number
  readonly settings?: Partial<Settings.Settings["Type"]> | undefined
  /** What is on its disk. Defaults to nothing. */
  readonly files?: Readonly<Record<string, string>> | undefined
}

export const start = ({ files = {}, seed, settings, text, transport }: Options) =>
  Effect.gen(function* () {
    const disk = SimCertificates.disk(seed)
    for (const [file, content] of Object.entries(files)) yield* disk.write(file, content)
    const services = yield* Layer.build(
      Tunnel.layer(Either.getOrThrow(TunnelUrl.parse(text))).pipe(
        Layer.provide([transport, SimCrypto.layer(seed), disk.layer, Settings.layer(settings), Tunnel.layerDefaults])
      )
    )
    return Context.get(services, Tunnel.Tunnel)
  })

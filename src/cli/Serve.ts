/**
 * Runs the tunnel or the master that a command URL describes, until it is interrupted.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { RegularFile } from "../core/RegularFile.js"
import type { KeyNotShown } from "../master/ApiKey.js"
import type { StoreError } from "../master/InstanceStore.js"
import type * as Runner from "../tunnel/Runner.js"
import * as Tunnel from "../tunnel/Tunnel.js"
import * as MasterUrl from "../url/MasterUrl.js"
import * as TunnelUrl from "../url/TunnelUrl.js"
import { Host } from "./Host.js"
import type { KeyFileError } from "./KeyFile.js"
import * as KeySource from "./KeySource.js"
import * as MetricsAddress from "./MetricsAddress.js"
import { UsageError } from "./UsageError.js"

export type ServeError = KeyFileError | KeyNotShown | Runner.OpenError | StoreError | UsageError

export interface Options {
  /** Whether the checkpoints are shown all the time. Tunnels only. */
  readonly watch: boolean
  /** A file with the tunnel key, or `-`. Tunnels only. */
  readonly keyFile: Option.Option<string>
  /** Where /metrics is served. Tunnels only: a master serves it with its API. */
  readonly metrics: Option.Option<string>
}

/** Fails when the URL or an option is invalid, and when the tunnel or the master cannot open its ports. */
export const serve = (
  url: string,
  options: Options
): Effect.Effect<void, ServeError, Host | RegularFile | Tunnel.Environment> =>
  MasterUrl.hasScheme(url) ? serveMaster(url, options) : serveTunnel(url, options)

// internal

const serveMaster = (url: string, { keyFile, metrics, watch }: Options) =>
  Effect.gen(function* () {
    const { master, prepare } = yield* Host
    const config = yield* MasterUrl.parse(url)
    yield* refuseForMaster([
      watch ? "--watch" : "",
      Option.match(yield* KeySource.find(keyFile), { onNone: () => "", onSome: KeySource.nameOf }),
      Option.isSome(metrics) ? "--metrics" : ""
    ])
    const process = prepare({ log: config.log, title: MasterUrl.format(config) })
    return yield* Effect.provide(master(config), process)
  })

const serveTunnel = (url: string, { keyFile, metrics, watch }: Options) =>
  Effect.gen(function* () {
    const host = yield* Host
    const parsed = yield* TunnelUrl.parse(url)
    const address = yield* MetricsAddress.parse(metrics)
    const source = yield* KeySource.find(keyFile)
    const config = yield* KeySource.apply(parsed, source)
    const opened = Tunnel.layer(config)
    const measured = Option.isSome(address) ? host.serveMetrics(address.value, opened) : opened
    const reloads = Option.match(Option.flatMap(source, KeySource.reloadable), {
      onNone: () => host.logReloads,
      onSome: (file) => KeySource.follow(file, host.reloads)
    })
    const keyed = Layer.provideMerge(background(reloads), measured)
    const tunnel = watch ? Layer.provideMerge(background(Effect.flatMap(Tunnel.Tunnel, host.watch)), keyed) : keyed
    const process = host.prepare({ log: config.log, title: TunnelUrl.format(config) })
    return yield* Effect.provide(Layer.launch(tunnel), process)
  })

/** Fails when one of these is given. */
const refuseForMaster = (given: ReadonlyArray<string>): Effect.Effect<void, UsageError> => {
  const argument = given.find((name) => name !== "")
  return argument === undefined
    ? Effect.void
    : new UsageError({ argument, expected: "server:// or client://, not master://" })
}

const background = <R>(effect: Effect.Effect<void, never, R>) => Layer.scopedDiscard(Effect.forkScoped(effect))

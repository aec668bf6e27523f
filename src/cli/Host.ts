/**
 * What the command line needs of the process that it runs in.
 */
import type * as CliApp from "@effect/cli/CliApp"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import type * as Stream from "effect/Stream"
import type { Address } from "../core/Address.js"
import type { Level } from "../core/LogLine.js"
import type { RegularFile } from "../core/RegularFile.js"
import type { WrittenFile } from "../core/WrittenFile.js"
import type { KeyNotShown } from "../master/ApiKey.js"
import type { StoreError } from "../master/InstanceStore.js"
import type { TransportError } from "../transport/Transport.js"
import type * as Runner from "../tunnel/Runner.js"
import type * as Tunnel from "../tunnel/Tunnel.js"
import type { MasterConfig } from "../url/MasterUrl.js"
import type { Operation } from "./Operation.js"
import type { OperatorError } from "./Operator.js"

export class Host extends Context.Tag("nodepass/Cli/Host")<
  Host,
  {
    readonly version: string
    /** Emits on each SIGHUP since the process started. */
    readonly reloads: Stream.Stream<void>
    /** Logs on SIGHUP that there is nothing to read again. */
    readonly logReloads: Effect.Effect<void>
    /** The first line of standard input, which is read once. */
    readonly readLine: Effect.Effect<Uint8Array, Error>
    /** Sets the log level, and the process title: without it, `ps` shows the URL with its key. */
    readonly prepare: (config: { readonly log: Level; readonly title: string }) => Layer.Layer<never>
    /** Shows the checkpoints of the tunnel until it is interrupted. */
    readonly watch: (tunnel: Tunnel.Tunnel["Type"]) => Effect.Effect<void>
    /** The tunnel, with /metrics and /health at the address from before it opens until after it has closed. */
    readonly serveMetrics: <E, R>(
      address: Address,
      tunnel: Layer.Layer<Tunnel.Tunnel, E, R>
    ) => Layer.Layer<Tunnel.Tunnel, E | TransportError, R>
    /** The demonstration: a target, a server and a client in this process, with their metrics at the address. */
    readonly demo: (metrics: Option.Option<Address>) => Effect.Effect<void, Runner.OpenError, Tunnel.Environment>
    /** Runs a master until it is interrupted. */
    readonly master: (
      config: MasterConfig
    ) => Effect.Effect<void, KeyNotShown | Runner.OpenError | StoreError, Tunnel.Environment>
    /** Replaces the API key of a master, and prints the new one. */
    readonly replaceApiKey: (
      state: Redacted.Redacted
    ) => Effect.Effect<void, KeyNotShown | StoreError, Tunnel.Environment>
    /** Writes the state of a master to a file; `-` is standard output. */
    readonly backup: (file: string, state: Option.Option<Redacted.Redacted>) => Effect.Effect<void, StoreError>
    /** Replaces the state of a master by a backup; `-` is standard input. Fails when there are instances, unless `force`. */
    readonly restore: (
      file: string,
      state: Option.Option<Redacted.Redacted>,
      options: { readonly force: boolean }
    ) => Effect.Effect<void, StoreError>
    /** Performs an operation through a master's API, and prints the result. */
    readonly operate: (
      operation: Operation
    ) => Effect.Effect<void, OperatorError, CliApp.CliApp.Environment | RegularFile | WrittenFile>
  }
>() {}

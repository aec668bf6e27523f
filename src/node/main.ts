/**
 * The command's process: real sockets, signals, standard error and exit codes around `Cli`.
 */
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as ValidationError from "@effect/cli/ValidationError"
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Cli from "../Cli.js"
import * as Settings from "../Settings.js"
import * as TunnelUrl from "../TunnelUrl.js"
import * as NodeCrypto from "./NodeCrypto.js"
import * as NodeLog from "./NodeLog.js"
import * as NodeTransport from "./NodeTransport.js"
import { createRequire } from "node:module"

/**
 * The entry of the command: runs `Program` in this process, and turns signals and its exit code into those of the process.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import process from "node:process"
import * as CliHost from "./CliHost.js"
import * as NodeLog from "./NodeLog.js"
import * as Program from "./Program.js"
import * as SecretVariables from "./SecretVariables.js"
import * as StandardOutput from "./StandardOutput.js"

const secrets = SecretVariables.take()

/** When the first signal came, in milliseconds. */
let first = Infinity

/**
 * The first signal starts the graceful stop; a second one exits at once, whichever of the two it is.
 *
 * One Ctrl-C can arrive twice: the terminal sends SIGINT to the whole process group, and npm or npx in that group forward
 * theirs. So a second signal within 300 ms is ignored.
 */
const exitOnSecondSignal = (signal: "SIGINT" | "SIGTERM", code: number) => {
  process.on(signal, () => {
    first = Math.min(first, performance.now())
    if (performance.now() - first > 300) process.exit(code)
  })
}
exitOnSecondSignal("SIGINT", 130)
exitOnSecondSignal("SIGTERM", 143)

Effect.flatMap(NodeLog.hasColors(process.stdout), (colors) =>
  Program.run({
    argv: process.argv,
    host: CliHost.host,
    write: StandardOutput.write,
    writeError: (line) => Effect.sync(() => console.error(line)),
    colors
  })
).pipe(
  Effect.flatMap((code) => (code === 0 ? Effect.void : Effect.sync(() => process.exit(code)))),
  Effect.provide(NodeLog.layer()),
  Effect.withConfigProvider(SecretVariables.provider(secrets)),
  NodeRuntime.runMain({ disableErrorReporting: true, disablePrettyLogger: true })
)

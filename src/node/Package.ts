/**
 * The folder of the installed package. This module lies at another depth as source, as a built module and in the bundle.
 */
import { existsSync } from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"

const above = (folder: string): string =>
  existsSync(Path.join(folder, "package.json")) || Path.dirname(folder) === folder
    ? folder
    : above(Path.dirname(folder))

/** The nearest folder above this module that holds a `package.json`. */
export const folder: string = above(Path.dirname(fileURLToPath(import.meta.url)))

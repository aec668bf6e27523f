/**
 * The folder of the installed package. This module is in another folder as source, as a built module and in the bundle.
 */
import { existsSync } from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"

const packageFolder = (folder: string): string =>
  existsSync(Path.join(folder, "package.json")) || Path.dirname(folder) === folder
    ? folder
    : packageFolder(Path.dirname(folder))

/** The nearest folder above this module that has a `package.json`. */
export const folder: string = packageFolder(Path.dirname(fileURLToPath(import.meta.url)))

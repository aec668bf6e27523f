/**
 * Which instance is looked at, as the address of the page has it, so that the browser's own back and reload work.
 */
import { useEffect, useState } from "preact/hooks"

/** Where the instance is looked at. */
export const linkTo = (id: string): string => `#/${id}`

/** Nobody is looked at. */
export const home = "#/"

/** The instance that is looked at, if one is. */
export const useRoute = (): string | undefined => {
  const [route, setRoute] = useState(read)
  useEffect(() => {
    const changed = () => setRoute(read())
    addEventListener("hashchange", changed)
    return () => removeEventListener("hashchange", changed)
  }, [])
  return route
}

// internal

const read = (): string | undefined => /^#\/([0-9a-f]{8})$/.exec(location.hash)?.[1]

/**
 * The selected instance, kept in the page's address so that the browser's back and reload work.
 */
import { useEffect, useState } from "preact/hooks"

/** The address of an instance. */
export const linkTo = (id: string): string => `#/${id}`

/** The address of the list. */
export const home = "#/"

/** The id of the selected instance. */
export const useRoute = (): string | undefined => {
  const [route, setRoute] = useState(read)
  useEffect(() => {
    const onHashChange = () => setRoute(read())
    addEventListener("hashchange", onHashChange)
    return () => removeEventListener("hashchange", onHashChange)
  }, [])
  return route
}

// internal

const read = (): string | undefined => /^#\/([0-9a-f]{8})$/.exec(location.hash)?.[1]

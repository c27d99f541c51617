/**
 * Reads this machine's own apt configuration, to find the mirror of its distribution and to describe a private source
 * list that adds the distribution's backports suite. Only text in, text out.
 */

/** What was found: the content of a private source list, in each of apt's two formats. */
export interface DistributionSources {
  /** One-line format (`*.list`). */
  readonly list: string;
  /** deb822 format (`*.sources`). */
  readonly sources: string;
}

interface Stanza {
  readonly fields: Map<string, string>;
}

/** Splits a deb822 text into stanzas; field names in lower case, comments dropped, continuation lines kept. */
function parseStanzas(text: string): Stanza[] {
  const stanzas: Stanza[] = [];
  let fields = new Map<string, string>();
  let last = '';
  const flush = () => {
    if (fields.size > 0) stanzas.push({ fields });
    fields = new Map();
    last = '';
  };
  for (const line of text.split('\n')) {
    if (line.startsWith('#')) continue;
    if (line.trim() === '') {
      flush();
    } else if (/^\s/.test(line)) {
      fields.set(last, `${fields.get(last) ?? ''}\n${line.trimEnd()}`);
    } else {
      const colon = line.indexOf(':');
      if (colon < 0) continue;
      last = line.slice(0, colon).trim().toLowerCase();
      fields.set(last, line.slice(colon + 1).trim());
    }
  }
  flush();
  return stanzas;
}

function words(value: string | undefined): string[] {
  return (value ?? '').split(/\s+/).filter((word) => word !== '');
}

function fromDeb822(text: string, codename: string): string | null {
  for (const { fields } of parseStanzas(text)) {
    if (/^(no|false|0)$/i.test(fields.get('enabled') ?? 'yes')) continue;
    if (!words(fields.get('types')).includes('deb') || !words(fields.get('suites')).includes(codename))
      continue;
    const kept = ['Signed-By', 'Trusted', 'Allow-Insecure']
      .filter((name) => fields.has(name.toLowerCase()))
      .map((name) => `${name}: ${fields.get(name.toLowerCase())}\n`)
      .join('');
    const uris = words(fields.get('uris')).join(' ');
    const components = words(fields.get('components')).join(' ');
    return ['', '-backports']
      .map(
        (suffix) =>
          `Types: deb\nURIs: ${uris}\nSuites: ${codename}${suffix}\nComponents: ${components}\n${kept}`,
      )
      .join('\n');
  }
  return null;
}

function fromList(text: string, codename: string): string | null {
  for (const line of text.split('\n')) {
    const match = /^\s*deb\s+(\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+([^#]+)/.exec(line);
    if (match === null || match[3] !== codename) continue;
    const [, options = '', uri, , components = ''] = match;
    return ['', '-backports']
      .map((suffix) => `deb ${options}${uri} ${codename}${suffix} ${components.trim()}\n`)
      .join('');
  }
  return null;
}

/**
 * Finds where a machine takes its distribution's packages from.
 *
 * @param files name and content of the machine's source lists, `*.list` and `*.sources`
 * @param codename of the distribution's release, as in /etc/os-release
 * @returns a source list with that release and its backports; null when no file names the release
 */
export function distributionSources(
  files: readonly { name: string; content: string }[],
  codename: string,
): DistributionSources | null {
  for (const { name, content } of files) {
    const deb822 = name.endsWith('.sources');
    const found = deb822 ? fromDeb822(content, codename) : fromList(content, codename);
    if (found !== null) return { list: deb822 ? '' : found, sources: deb822 ? found : '' };
  }
  return null;
}

/** Countries to send to: ISO 3166-1 codes; names come from Intl in the page's language. */

const CODES =
  "AD AE AF AG AI AL AM AO AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BW BY " +
  "BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ " +
  "FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GT GU GW GY HK HN HR HT HU ID IE IL IM IN IO IQ IR " +
  "IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH " +
  "MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK " +
  "PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ " +
  "TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

/**
 * [code, name] sorted by name.
 * @param {string} language
 * @returns {[string, string][]}
 */
export function countries(language) {
  const names = new Intl.DisplayNames(language, { type: "region" });
  const order = new Intl.Collator(language);
  return CODES.split(" ")
    .map((code) => /** @type {[string, string]} */ ([code, names.of(code) ?? code]))
    .sort((a, b) => order.compare(a[1], b[1]));
}

/**
 * A country by its name; what is no code of one stays as it is.
 * @param {string} code
 * @param {string} language
 */
export function countryName(code, language) {
  return CODES.split(" ").includes(code) ? (new Intl.DisplayNames(language, { type: "region" }).of(code) ?? code) : code;
}

/**
 * The lines of an address in the order in which they are written.
 * @param {Record<string, string> | null | undefined} address
 * @param {string} language
 * @returns {string[]}
 */
export function addressLines(address, language) {
  /** @type {Record<string, string>} */
  const told = { ...address, country: countryName(address?.country ?? "", language) };
  return ["line1", "line2", "postcode", "city", "region", "country"].map((name) => told[name] ?? "").filter(Boolean);
}

/**
 * The country that the browser's language suggests.
 * @param {readonly string[]} languages
 */
export function likelyCountry(languages) {
  for (const language of languages) {
    const region = language.split("-").find((part) => /^[A-Z]{2}$/.test(part));
    if (region && CODES.includes(region)) return region;
  }
  return "";
}

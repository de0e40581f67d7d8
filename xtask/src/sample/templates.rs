//! Templates: the lines that texts are made of.

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Prose,
    Markdown,
    Code,
    Sql,
    Log,
    Listing,
    Trace,
    Diff,
    Scalar,
}

pub(super) const TEXT_KINDS: &[Kind] =
    &[Kind::Prose, Kind::Prose, Kind::Prose, Kind::Markdown, Kind::Code, Kind::Log, Kind::Sql];

pub(super) const BENCH_KINDS: &[Kind] =
    &[Kind::Prose, Kind::Prose, Kind::Code, Kind::Log, Kind::Trace, Kind::Sql];

/// The templates of each [`Kind`], in its order, one a line; one is drawn for each line of text. The letters
/// after the dollar signs are those of [`Author::expand_mark`].
pub(super) const TEMPLATES: [&str; 9] = [
    r##"
$S $S
$S $W $s, $s; $s.
$S $W $s ($w), and `$i` $s.
$W $s: "$s"? $S $l
$f $l
$S See $p:$n and $h. $S
I $s. Then $s, $s. $l
Let me check $p. $S $S
$S $S $S $W $s $n $w. $e
"##,
    r##"
## $W $s
- **$w**: $s
- `$p` $s ($n $w)
$S $S
| $w | $n | $i |
1. $S
> $f $s $e
```rust$/let $i = $w::$w($n)?;$/```
See [$w $w](https://docs.example.org/$w/$w#$w-$n). $S
* [x] $s
"##,
    r##"
    let $i = self.$w.$w(&$i)?;
    if $i.$w() > $n {$/        return Err($I::$I { $w: $n });$/    }
pub fn $i($w: &$I, $w: u64) -> Result<$I, $I> {$/    let $w = $i($w)?;
    // $S
    /// $S $S
def $i($w, $w=$n):$/    """$S"""$/    return {$w!r: $w["$w"] for $w in $i}
const $w = await client.$w(`/$w/${id}`, { $w: $n, "$w": '$w' });
        assert_eq!($i($n, "$w"), Some($n), "$s");
}$/
from $w.$w import $I, $i
    for ($w, $w) in $i.iter().filter(|$w| $w.$w >= $n) {
$>$>$w.$w[$n] = $w.$w($i, 0x$h)$>// $w $w
"##,
    r##"
SELECT $w.$w, count(*) AS $w, sum($w.$w) FROM $w.$w
  LEFT JOIN $i AS $w ON $w.$w = $w.$w AND $w.$w > $n
WHERE $w.$w = '$u' AND $w BETWEEN $n AND $N
  AND $w IN ('$w', '$w', '$w') AND $w LIKE '%$w%'
GROUP BY 1, $w HAVING max($w) < $n ORDER BY $w DESC LIMIT $n;
-- $S
UPDATE $w.$i SET $w = $w + $n, $w = '$w' WHERE id = $1 RETURNING $w;
"##,
    r##"
$t INFO $w::$w: $s $w=$n $w=$h
$t DEBUG $w::$w{$w=$n $w="$w"}: $s
$t WARN $w: $s, attempt $x of 5, next in $n ms
$^[32m$t$^[0m INFO request{id=$u peer=$a}: $w $w status=200 bytes=$n
$t ERROR $w::$w: $s at $p:$n
{"level":"info","ts":$n.$n,"msg":"$s","$w":"$h"}
"##,
    r##"
-rw-r--r--  1 app app $n Jan  5 08:$x$x $p
$p:$n:    $i($w, $n)
$H  $p
test $w::$i ... ok
   Compiling $w v0.$x.$x ($w)
warning: unused variable: `$i` --> $p:$n:$x
$w,$n,$n.$x,$h,$w $w,$f
$b
"##,
    r##"
$I: $s (code $n)
  File "$p", line $n, in $i$/    $w = $w.$w($w, $n)
    at $I.$w ($p:$n:$x)
    at async $I.$i ($p:$n:$x)
Caused by: $s: $w $h $w
   $x: $w::$w::{{closure}}$/             at $p:$n
$>at com.example.$w.$I.$w($I.java:$n)
"##,
    r##"
--- a/$p
@@ -$n,$x +$n,$x @@ fn $i()
-    let $i = $w($n);
+    let $i = $w::$w($n, "$w");
     $w.$w($i);
+    // $S
index $h..$h 100644
"##,
    r##"
$w
$w $w
$s
$S $l
$u
$h
$t
$p
$m
$w-$n
$f
$W $W $e
$i
$w "$w" \ $w/$w
"##,
];
